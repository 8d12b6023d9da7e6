"""Picture of the budgeted estimate's honesty: how often its 95 % interval held the reference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.record import Record
from bench.record.kinds import COVERAGE
from bench.report.page.blocks import Figure
from bench.report.page.figures import MUTED, PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def coverage_figure(records: Sequence[Record]) -> Figure:
    """One line per estimator record, with its exact interval, and the goal as a band."""
    rows: list[tuple[str, Any]] = [
        (_name(record), record.results["coverage"]) for record in records
    ]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        axes.axvspan(100 * COVERAGE[0], 100 * COVERAGE[1], color=MUTED, alpha=0.15)
        axes.axvline(95.0, color=MUTED, linestyle=":", linewidth=1.0)
        for place, (_, found) in enumerate(rows):
            ends = [100 * found["low"], 100 * found["high"]]
            axes.plot(ends, [place, place], color=PALETTE[0], linestyle="-")
            axes.plot([100 * found["estimate"]], [place], "o", color=PALETTE[0])
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("% of repetitions whose 95 % interval held the reference")

    said = "; ".join(f"{name}: {100 * found['estimate']:.1f} %" for name, found in rows)
    return Figure(
        "estimator-coverage",
        draw,
        f"Coverage of the 95 % interval, with exact (Clopper–Pearson) intervals over the repetitions; grey: the goal, "
        f"{COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}.",
        alt=f"Coverage of each estimate. {said}.",
        size=(7.0, 0.9 + 0.3 * len(rows)),
    )


def _name(record: Record) -> str:
    protocol = record.protocol
    data = str((record.data or {}).get("name", "digits"))
    subject = str(protocol["subject"]).partition(",")[0]
    budget = protocol["evaluations"] / protocol["images"]
    return f"{data}, {subject}, {protocol['images']} images, {budget:.3g} each"
