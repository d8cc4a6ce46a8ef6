"""The timeline: what is kept of a pass, and that the drawing stands by itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from components.errors import InputError
from components.memory.settings import StepSettings, StepShape
from components.memory.simulate import StepModel
from components.memory.timeline import POINTS, Timeline, render_html, render_svg, timeline, write_timeline
from components.models.tiny import make_tiny

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    base = make_tiny(tmp_path_factory.mktemp("bases") / "tiny", layers=3)
    model = StepModel(base, StepSettings(rank=8))
    simulation = model.run(StepShape(2, 200, gradient_checkpointing=True, accumulating=True))
    return timeline(model.moments(), simulation.peak, "lora <3 blocks>")


def test_thinning_keeps_the_peak_and_the_order(found: Timeline) -> None:
    totals = [sum(moment.sizes.values()) for moment in found.moments]
    assert max(totals) == found.peak.peak_bytes
    assert found.moments[totals.index(max(totals))].operation == found.peak_operation
    assert len(totals) <= POINTS
    assert [name for name, _ in found.phases] == ["forward", "backward", "step"]
    operations = [moment.operation for moment in found.moments]
    assert operations == sorted(operations)
    # all is the step's: what was alive before is its beginning, what is freed behind it is left out
    assert found.moments[0].sizes["weights"] > 0


def test_the_drawing_is_a_document_with_an_area_a_category_and_the_peak_at_its_place(found: Timeline) -> None:
    root = ElementTree.fromstring(render_svg(found))
    areas = {area.get("class"): area.get("points", "").split() for area in root.iter(f"{SVG}polygon")}
    assert set(areas) == {"weights", "optimizer", "gradients", "other", "activations"}
    assert all(len(points) == 2 * len(found.moments) for points in areas.values())
    (circle,) = root.iter(f"{SVG}circle")
    highest = min(float(point.split(",")[1]) for point in areas["activations"])
    assert float(circle.get("cy", "")) == pytest.approx(highest, abs=0.11)
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "lora <3 blocks>" in texts
    assert any(text.startswith("peak ") and found.peak.module in text for text in texts)


def test_the_page_needs_nothing_else(found: Timeline) -> None:
    page = render_html(found)
    assert page == render_html(found)
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert f"{found.peak.peak_bytes:,} bytes" in page


def test_the_ending_says_which_kind_is_written(found: Timeline, tmp_path: Path) -> None:
    write_timeline(found, tmp_path / "step.svg")
    write_timeline(found, tmp_path / "step.html")
    assert (tmp_path / "step.svg").read_text().startswith("<svg")
    assert (tmp_path / "step.html").read_text().startswith("<!doctype html>")
    with pytest.raises(InputError, match=r"neither \.svg nor \.html"):
        write_timeline(found, tmp_path / "step.png")


def test_a_pass_that_was_not_run_has_no_timeline(found: Timeline) -> None:
    with pytest.raises(InputError, match="without moments"):
        timeline(iter(()), found.peak, "nothing")
