"""The model card says what was recorded, under the hub's names, and nothing that was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from registry.canonical import sha256_text
from registry.card import HUB_LICENCES, front_matter, model_card
from registry.entities import Evaluation, Version
from registry.gate import Policy
from registry.store import Registry

Add = Callable[..., Version]

# What hub-docs' modelcard.md and huggingface_hub's ModelCardData know.
HUB_KEYS = {"language", "license", "license_name", "license_link", "library_name", "tags", "datasets", "metrics",
            "base_model", "base_model_relation", "pipeline_tag", "model-index", "new_version", "thumbnail",
            "co2_eq_emissions"}  # fmt: skip
HUB_ORIGIN = "hub org/tiny-base at " + "ab" * 20


@pytest.fixture
def measured(registry: Registry, add_adapter: Add, make_report: Callable[..., dict[str, Any]]) -> Version:
    version = add_adapter(
        licence="Apache-2.0",
        library_versions={"torch": "2.13.0"},
        metadata={
            "method": "lora",
            "data_licence": "CC-BY-SA-4.0",
            "training": {"steps": 66, "rows": 586, "tokens": 57206, "trainable_parameters": 10, "total_parameters": 99},
            "time": {"measured_seconds": 490.2},
            "memory": {"measured_bytes": 3 * 2**30},
            "energy": {
                "kwh": 0.012345,
                "seconds": 512.3,
                "counters": ["intel-rapl:0 package-0", "dram"],
                "unknown": None,
            },
            "tactics": {"rank": {"value": 8, "source": "chosen by tactics", "reason": "…"}},
            "origin": None,
        },
    )
    report = make_report() | {"policy": Policy(min_rows=100).to_dict()}
    report["task"]["subset"] = "single-table"
    report["task"]["test_digest"] = "c" * 64
    report["tax"][0] |= {"metric": "accuracy", "base": 0.5, "tuned": 0.49}
    registry.record_evaluation(version.digest, report)
    return version


def newest(registry: Registry, version: Version) -> Evaluation | None:
    return next(iter(registry.evaluations(version.digest)), None)


def test_front_matter_has_the_hubs_names_and_can_be_read_by_its_library(
    registry: Registry, measured: Version, add_base: Add
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    base = add_base()
    card = model_card(measured, newest(registry, measured), base)
    front = yaml.safe_load(card.split("---\n")[1])
    assert set(front) <= HUB_KEYS
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "peft"
    data = hub.ModelCard(card).data
    assert [(r.metric_type, r.metric_value, r.dataset_name) for r in data.eval_results] == [
        ("execution_match", pytest.approx(0.3), "held-out rows, subset single-table"),
        ("accuracy", 0.49, "grammar"),
    ]
    assert data.model_name == "text2sql:v1"
    assert data.to_dict() == front


def test_the_text_says_data_method_scores_tax_licences_and_time(
    registry: Registry, measured: Version, add_base: Add
) -> None:
    card = model_card(measured, newest(registry, measured), add_base())
    for said in (
        "Base: tiny-base, fingerprint",
        measured.digest,
        "| single-table | 128 | 10.0 % | 30.0 % | +20.0 | +10.0 to +30.0 |",
        "| grammar | 50 | 50.0 % | 49.0 % | +0.0 | -1.0 to +2.0 |",
        "The policy that it was measured for is satisfied.",
        "66 steps over 57,206 tokens of 586 rows",
        "| rank | 8 | chosen by tactics |",
        "Training took 490 s.",
        "Peak of memory: 3.00 GiB.",
        "Energy: 0.0123 kWh in 512 s, loading and checks among them, counted by intel-rapl:0 package-0, dram",
        "| train.jsonl | ",
        "| data | CC-BY-SA-4.0 |",
        "| base tiny-base | Apache-2.0 |",
        "torch 2.13.0",
    ):
        assert said in card, said


def test_what_was_not_measured_is_not_there(registry: Registry, add_adapter: Add, add_base: Add) -> None:
    card = model_card(add_adapter(), None, add_base())
    assert "Nothing was measured of these weights." in card
    for word in ("nergy", "Training took", "Peak of memory", "model-index", "co2", "None", "## Method"):
        assert word not in card, word
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"


def test_energy_that_was_not_counted_says_why(registry: Registry, add_adapter: Add, add_base: Add) -> None:
    unknown = {"kwh": None, "seconds": 2.0, "counters": [], "unknown": "this machine shows no counter of energy"}
    card = model_card(add_adapter(metadata={"method": "lora", "energy": unknown}), None, add_base())
    assert "Energy: unknown; this machine shows no counter of energy." in card


def test_a_base_of_the_hub_is_named_by_its_id(registry: Registry, add_adapter: Add, add_base: Add) -> None:
    version = add_adapter()
    base = add_base()
    plain = front_matter(version, None, base)
    assert "base_model" not in plain
    with_origin = base.manifest_json.replace('"metadata":{}', f'"metadata":{{"origin":"{HUB_ORIGIN}"}}')
    of_the_hub = replace(base, manifest_json=with_origin, digest=sha256_text(with_origin))
    front = front_matter(version, None, of_the_hub)
    assert (front["base_model"], front["base_model_relation"]) == ("org/tiny-base", "adapter")


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("CC-BY-SA-4.0", {"license": "cc-by-sa-4.0"}),
        (None, {"license": "unknown"}),
        ("Our own: research only!", {"license": "other", "license_name": "our-own-research-only"}),
    ],
)
def test_a_licence_is_an_identifier_of_the_hub_or_other_with_a_name(
    registry: Registry, add_adapter: Add, licence: str | None, expected: dict[str, str]
) -> None:
    front = front_matter(add_adapter(licence=licence), None, None)
    assert {key: value for key, value in front.items() if key.startswith("license")} == expected
    assert front["license"] in HUB_LICENCES | {"other"}


HOSTILE = "</table>\n# Heading | [x](javascript:y) `code` ---\n---\nlicense: mit\n"


@pytest.mark.usefixtures("any_report")
def test_what_others_wrote_ends_no_line_and_no_cell(registry: Registry, add_adapter: Add) -> None:
    version = add_adapter(metadata={"method": HOSTILE, "origin": HOSTILE, "tactics": {HOSTILE: {"value": HOSTILE}}})
    # a licence as an earlier release took it
    manifest = replace(version.manifest, licence=HOSTILE)
    registry.record_evaluation(
        version.digest,
        {"task": {"metric": HOSTILE, "tuned": 0.5, "n": HOSTILE, "subset": HOSTILE}, "tax": [{"suite": HOSTILE}, 3]},
    )
    old = replace(version, manifest_json=manifest.canonical, digest=manifest.digest)
    card = model_card(old, newest(registry, version), None)
    _, front, text = card.split("---\n", 2)
    assert set(yaml.safe_load(front)) <= HUB_KEYS
    assert not [line for line in text.splitlines() if line.startswith("# ") and "text2sql" not in line]
    assert "</table>" not in text.replace("\\</table\\>", "")
    assert "](javascript" not in text.replace("\\](", "")


@pytest.mark.usefixtures("any_report")
@pytest.mark.parametrize(
    "report",
    [
        {"task": 3, "tax": 4},
        {"task": {"subsets": 5}, "tax": "x"},
        {"task": None, "policy": {"unknown": 1}},
        {"task": {"tuned": "high", "delta": True}, "tax": [None, {"suite": None}]},
        {"task": {"tuned": 10**400, "delta": 10**400}, "tax": [{"suite": "s", "tuned": -(10**400)}]},
    ],
)
def test_a_report_of_any_form_makes_a_card(registry: Registry, add_adapter: Add, report: dict[str, Any]) -> None:
    version = add_adapter()
    registry.record_evaluation(version.digest, report)
    card = model_card(version, newest(registry, version), None)
    assert "model-index" not in card
    assert ("can't be used" in card) == ("policy" in report)
