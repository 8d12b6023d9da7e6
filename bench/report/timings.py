"""Picture of the rounds behind a contest's medians: every round of every contender."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.record import Record, is_series
from bench.report.page.blocks import Figure
from bench.report.page.digits import number
from bench.report.page.figures import INK, PALETTE

if TYPE_CHECKING:
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
            heights = place + 0.28 * np.cos(
                np.arange(len(values)) * 2.399963
            )  # spread, not drawn at random
            axes.plot(
                values, heights, "o", color=PALETTE[0], alpha=0.35, markersize=2.5, linestyle=""
            )
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
