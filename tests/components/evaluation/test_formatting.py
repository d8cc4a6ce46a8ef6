"""Numbers and untrusted text as people read them."""

from __future__ import annotations

import pytest

from components.evaluation import formatting as f


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (f.percent(0.328125), "32.8 %"),
        (f.percent(0), "0.0 %"),
        (f.points(-0.031), "−3.1"),
        (f.points(0.2), "+20.0"),
        (f.points(-0.0001), "0.0"),
        (f.interval(0.012, 0.0776), "1.2 to 7.8 %"),
        (f.interval(-0.012, 0.04, signed=True), "−1.2 to +4.0"),
        (f.count(134515008), "134,515,008"),
        (f.number(0.00031), "0.00031"),
        (f.number(-2.5), "−2.5"),
        (f.number(2.0), "2"),
        (f.ratio(258, 241), "1.07"),
        (f.ratio(1, 0), "–"),
        (f.size(1288490188), "1.20 GiB"),
        (f.size(812), "812 B"),
        (f.size(19 * 2**20), "19.0 MiB"),
        (f.duration(0.416), "0.42 s"),
        (f.duration(59.94), "59.9 s"),
        (f.duration(59.96), "1 min 00 s"),
        (f.duration(252), "4 min 12 s"),
        (f.duration(3599.7), "1 h 00 min"),
        (f.duration(3780), "1 h 03 min"),
        (f.short("sha256:" + "ab" * 32), "abababababab"),
        (f.value(0.001), "0.001"),
        (f.value(True), "yes"),
        (f.value(["q_proj", "v_proj"]), "q_proj, v_proj"),
        (f.value({"a": [1, 2]}), '{"a":[1,2]}'),
        (f.unbroken("10.5 % of n = 256 in 4 min"), "10.5\xa0% of n\xa0=\xa0256 in 4\xa0min"),
    ],
)
def test_values_read_well(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    "render", [f.percent, f.points, f.count, f.number, f.size, f.duration, f.short, f.value], ids=lambda r: r.__name__
)
def test_missing_is_a_dash(render: object) -> None:
    assert render(None) == f.ABSENT  # type: ignore[operator]


@pytest.mark.parametrize("render", [f.percent, f.points, f.count, f.number, f.size, f.duration])
def test_what_is_no_number_is_a_dash(render: object) -> None:
    for wrong in (float("nan"), float("inf"), "12", True):
        assert render(wrong) == f.ABSENT  # type: ignore[operator]


def test_plain_text_keeps_lines_and_drops_control() -> None:
    assert f.plain("a\r\nb\tc") == "a\nb\tc"
    assert f.plain("\x1b[31m\x00\x9b\u202e\ud800é") == "�[31m����é"
