"""Pictures of the rounds behind every median: of a contest, and of the suite."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.record import Record, is_series
from bench.report.page.blocks import Figure
from bench.report.page.digits import number
from bench.report.page.figures import INK, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


def rounds_figure(records: Sequence[Record]) -> Figure | None:
    """The rounds of the largest batch on most threads; None without any."""
    found = [(case, record) for record in records for case in record.results["contests"]]
    if not found:
        return None
    case, record = max(found, key=lambda pair: (pair[0]["elements"], pair[0]["threads"]))
    start = f"{case['shape']}, threads {case['threads']}, "
    series = {
        name.removeprefix(start): [1e9 * v / case["elements"] for v in sample["values"]]
        for name, sample in record.samples.items()
        if name.startswith(start) and is_series(sample)
    }
    if not series:
        return None
    names = sorted(series, key=lambda name: float(np.median(series[name])))

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for place, name in enumerate(names):
            values = series[name]
            _round_dots(axes, values, place)
            middle = float(np.median(values))
            axes.plot([middle, middle], [place - 0.4, place + 0.4], color=INK, linestyle="-")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("ns per element")

    said = "; ".join(
        f"{name}: median {number(float(np.median(series[name])))}, "
        f"{number(min(series[name]))} to {number(max(series[name]))}"
        for name in names
    )
    return Figure(
        "throughput-rounds",
        draw,
        f"Every round of the contest at {case['shape']} on {case['threads']} threads: a dot is one turn, the line is the median.",
        alt=f"Nanoseconds per element over {len(series[names[0]])} rounds. {said}.",
        size=(7.0, 0.8 + 0.32 * len(names)),
    )


def spread_figure(records: Sequence[Record]) -> Figure | None:
    """Every round of every case of the suite, as a multiple of the case's median; None without any."""
    found = {
        f"{row['group']}: {row['contender']}, {row['threads']} threads": sample["values"]
        for record in records
        for row in record.results["rows"]
        for sample in [record.samples.get(f"{row['name']}, threads {row['threads']}")]
        if sample is not None and is_series(sample)
    }
    if not found:
        return None
    shares = {
        name: [value / float(np.median(values)) for value in values]
        for name, values in found.items()
    }
    names = list(shares)

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for place, name in enumerate(names):
            _round_dots(axes, shares[name], place)
        axes.set_yticks(range(len(names)), names, fontsize=6.5)
        axes.invert_yaxis()
        axes.margins(y=0.5 / len(names))
        axes.set_xscale("log")
        axes.axvline(1.0, color=INK, linestyle="-", linewidth=0.8)
        axes.set_xlabel("time of a round / median of its case")

    widest = max(names, key=lambda name: max(shares[name]))
    return Figure(
        "throughput-spread",
        draw,
        "How each timing scatters: a dot is one round of a case, as a multiple of the case's median. What lies far to the right was interrupted; "
        "medians are not moved by it.",
        alt=f"Rounds of {len(names)} cases around their medians; the slowest is {number(max(shares[widest]))} times its median ({widest}).",
        size=(7.0, 0.8 + 0.17 * len(names)),
    )


def _round_dots(axes: "Axes", values: Sequence[float], place: int) -> None:
    """A dot a round, spread over the height of a line, and not drawn at random."""
    heights = place + 0.28 * np.cos(np.arange(len(values)) * 2.399963)
    axes.plot(values, heights, "o", color=PALETTE[0], alpha=0.35, markersize=2.5, linestyle="")
