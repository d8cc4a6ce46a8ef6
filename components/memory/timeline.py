"""Draw what was alive over a simulated pass: bytes over operators run, stacked by category, the peak marked.

One file that needs nothing else: an SVG with its own style, or a page around it with the figures in a table. Equal
input, equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import escape

from components.errors import InputError
from components.evaluation.charts import Scale, scale_for
from components.files import write_atomic
from components.memory.storages import Moment, Peak

__all__ = [
    "Timeline",
    "check_timeline_file",
    "describe_peak",
    "render_html",
    "render_svg",
    "timeline",
    "write_timeline",
]

POINTS = 480
WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 84, 20, 64, 44
# what stays lies at the bottom, what comes and goes on top
ORDER = ("weights", "optimizer", "gradients", "cache", "other", "activations")
STYLE = """
.ground{fill:#fff}text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}
.grid{stroke:#ddd}.phase{stroke:#777;stroke-dasharray:3 3}.peak{fill:none;stroke:#b00020;stroke-width:2}
.weights{fill:#4c6a92}.optimizer{fill:#8a6fae}.gradients{fill:#c97b3d}.cache{fill:#4f9a94}.other{fill:#9a9a9a}
.activations{fill:#7fae5a}
@media (prefers-color-scheme:dark){.ground{fill:#16181c}text{fill:#ddd}.grid{stroke:#3a3d44}.phase{stroke:#999}
.peak{stroke:#ff6b81}}
""".replace("\n", "")


@dataclass(frozen=True)
class Timeline:
    """A pass, thinned out to what can be drawn.

    Attributes:
        title: What was simulated.
        moments: At most `POINTS` moments in order, each the greatest of its stretch.
        peak: The greatest of all.
        peak_operation: Operators run before it.
        phases: (name, operators run before it began).
        operations: Operators run in all.
    """

    title: str
    moments: tuple[Moment, ...]
    peak: Peak
    peak_operation: int
    phases: tuple[tuple[str, int], ...]
    operations: int


def timeline(moments: Iterable[Moment], peak: Peak, title: str) -> Timeline:
    """Thin a pass out, keeping the greatest moment of each stretch.

    Args:
        moments: What was alive after each change, the phases of the pass alone or with what follows them.
        peak: The peak within the phases that count.
        title: What was simulated.

    Returns:
        The timeline, of the phases that count.

    Raises:
        InputError: No moment lies in them.
    """
    counted = [moment for moment in moments if moment.phase in peak.phase_peaks]
    if not counted:
        raise InputError("a timeline without moments", allowed="the moments of a pass that was run")
    last = counted[-1].operation
    width = max(1, -(-(last + 1) // POINTS))
    greatest: dict[int, tuple[float, Moment]] = {}
    phases: dict[str, int] = {}
    best: tuple[float, Moment] = (-1.0, counted[0])
    for moment in counted:
        phases.setdefault(moment.phase, moment.operation)
        total = sum(moment.sizes.values())
        stretch = moment.operation // width
        if stretch not in greatest or total > greatest[stretch][0]:
            greatest[stretch] = (total, moment)
        if total > best[0]:
            best = (total, moment)
    kept = tuple(greatest[stretch][1] for stretch in sorted(greatest))
    return Timeline(title, kept, peak, best[1].operation, tuple(phases.items()), last)


def check_timeline_file(path: Path) -> None:
    """Refuse a file name that says neither SVG nor HTML.

    Raises:
        InputError: With what is allowed.
    """
    if path.suffix.lower() not in (".svg", ".html"):
        raise InputError(f"{path} is neither .svg nor .html", allowed="--timeline FILE.html or --timeline FILE.svg")


def write_timeline(found: Timeline, path: Path) -> None:
    """Write the drawing, as its file's ending says.

    Raises:
        InputError: Neither .svg nor .html.
    """
    check_timeline_file(path)
    render = render_html if path.suffix.lower() == ".html" else render_svg
    write_atomic(path, render(found))


def render_svg(found: Timeline) -> str:
    """Draw the timeline as one SVG document."""
    across = Scale(0.0, float(max(found.operations, 1)), scale_for([0.0, float(found.operations)]).ticks)
    highest = max(sum(moment.sizes.values()) for moment in found.moments)
    unit, name = (2**30, "GiB") if highest >= 2**30 else (2**20, "MiB")
    up = scale_for([0.0, highest / unit])
    body = [f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>']
    body.append(f'<text class="title" x="{LEFT}" y="22">{escape(found.title)}</text>')
    for tick in up.ticks:
        y = _y(up, tick)
        body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        body.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:g} {name}</text>')
    shown = [key for key in ORDER if any(moment.sizes.get(key) for moment in found.moments)]
    body += _areas(found.moments, shown, across, up, unit)
    body += _phases(found, across)
    body += _legend(shown)
    body += _peak(found, across, up, unit)
    body.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{found.operations:,} operators run</text>'
    )
    label = escape(f"{found.title}: {describe_peak(found.peak)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"<title>{label}</title><style>{STYLE}</style>{''.join(body)}</svg>\n"
    )


def render_html(found: Timeline) -> str:
    """Draw the timeline as a page, with the peak's breakdown and each phase's peak below it."""
    peak = found.peak
    rows = [("peak", peak.peak_bytes), *peak.breakdown.items()]
    rows += [(f"peak of the {phase} phase", size) for phase, size in peak.phase_peaks.items()]
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{size / 2**30:,.3f} GiB</td><td>{size:,} bytes</td></tr>"
        for name, size in rows
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(found.title)}</title><style>'
        "body{font:14px system-ui,sans-serif;max-width:1000px;margin:24px auto;padding:0 16px;color-scheme:light dark}"
        "th{text-align:left;font-weight:400}td{text-align:right;padding-left:24px;font-variant-numeric:tabular-nums}"
        f"</style></head><body>{render_svg(found)}<p>{escape(describe_peak(peak))}</p><table>{cells}</table>"
        "</body></html>\n"
    )


def describe_peak(peak: Peak) -> str:
    """Say how large the peak is, when and where."""
    outside = {"step": "the optimizer", "prefill": "the cache or output layer", "decode": "the cache or output layer"}
    place = peak.module or outside.get(peak.phase, "the output layer and loss")
    return f"peak {peak.peak_bytes / 2**30:.2f} GiB in the {peak.phase} phase, at {place}"


def _x(scale: Scale, operation: float) -> str:
    return f"{LEFT + scale.share(operation) * (WIDTH - LEFT - RIGHT):.1f}"


def _y(scale: Scale, amount: float) -> str:
    return f"{TOP + (1 - scale.share(amount)) * (HEIGHT - TOP - BOTTOM):.1f}"


def _areas(moments: Sequence[Moment], names: Sequence[str], across: Scale, up: Scale, unit: int) -> list[str]:
    """Draw the categories on top of one another."""
    below = [0.0] * len(moments)
    drawn = []
    for name in names:
        above = [level + moment.sizes.get(name, 0.0) / unit for level, moment in zip(below, moments, strict=True)]
        outline = [*zip(moments, above, strict=True), *reversed([*zip(moments, below, strict=True)])]
        points = " ".join(f"{_x(across, moment.operation)},{_y(up, level)}" for moment, level in outline)
        drawn.append(f'<polygon class="{name}" points="{points}"><title>{name}</title></polygon>')
        below = above
    return drawn


def _phases(found: Timeline, across: Scale) -> list[str]:
    drawn = []
    for name, start in found.phases:
        x = _x(across, start)
        drawn.append(f'<line class="phase" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        # a short last phase has its name to the left of its line
        side = (-4, "end") if across.share(start) > 0.93 else (4, "start")
        drawn.append(
            f'<text x="{float(x) + side[0]:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{side[1]}">'
            f"{escape(name)}</text>"
        )
    return drawn


def _legend(names: Sequence[str]) -> list[str]:
    drawn = []
    for place, name in enumerate(names):
        x = LEFT + place * 120
        drawn.append(
            f'<rect class="{name}" x="{x}" y="34" width="12" height="12"/><text x="{x + 18}" y="44">{name}</text>'
        )
    return drawn


def _peak(found: Timeline, across: Scale, up: Scale, unit: int) -> list[str]:
    x, y = _x(across, found.peak_operation), _y(up, found.peak.peak_bytes / unit)
    left = float(x) > WIDTH / 2
    return [
        f'<circle class="peak" cx="{x}" cy="{y}" r="5"/>',
        f'<text x="{float(x) + (-10 if left else 10):.1f}" y="{float(y) - 8:.1f}" '
        f'text-anchor="{"end" if left else "start"}">{escape(describe_peak(found.peak))}</text>',
    ]
