"""Two pictures of the study: how the effect of the output depends on the weighting, and what the weightings are."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from bench.record.study import SYMBOLS, Measure, Results, completed, label_of, measure, value_of
from bench.report.page import digits
from bench.report.page.blocks import Figure
from bench.report.page.figures import MUTED, PALETTE
from bench.report.study.effects import arm_interval, has_factorial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_CORNERS = ("simple", "simple_x0")
_MEASURES = ("bits_per_dim", "fd")

IN_IMAGE_SPACE: Mapping[str, Callable[[float], float]] = {
    "simple": lambda snr: snr,
    "simple_x0": lambda snr: 1.0,
    "simple_v": lambda snr: snr + 1.0,
    "truncated_snr": lambda snr: max(snr, 1.0),
    "min_snr": lambda snr: min(snr, 5.0),
    "p2": lambda snr: snr / (1.0 + snr),
}
"""Weighting → its factor on the squared error of x₀, a function of SNR; on that of ε it is the same divided by SNR."""


def interaction_figure(results: Results) -> Figure | None:
    """Mean and every seed at the four corners; parallel lines would mean that output and weighting do not interact."""
    if not has_factorial(results):
        return None
    entries = [measure(key) for key in _MEASURES]

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(1, 2)
        for axes, entry in zip(panels, entries, strict=True):
            _corners(axes, results, entry)
        panels[0].legend()

    said = "; ".join(
        f"{SYMBOLS[output]} under {weighting}, {label_of(results, entry)}: "
        f"{digits.with_interval(arm_interval(results, entry, f'{output}/{weighting}'))}"
        for entry in entries
        for output in ("eps", "x0")
        for weighting in _CORNERS
    )
    return Figure(
        "interaction",
        draw,
        "Output × weighting: each dot is a seed, each line joins the means of one output. Lines that cross mean that neither output "
        "wins as such.",
        alt=f"Means of the four arms. {said}.",
        size=(7.0, 3.2),
        narrow=(4.2, 6.0),
    )


def _corners(axes: "Axes", results: Results, entry: Measure) -> None:
    for output, color, line in (("eps", PALETTE[0], "-"), ("x0", PALETTE[1], (0, (5, 2)))):
        means = [arm_interval(results, entry, f"{output}/{weighting}") for weighting in _CORNERS]
        for place, weighting in enumerate(_CORNERS):
            runs = completed(results, f"{output}/{weighting}")
            values = [v for v in (value_of(results, run, entry) for run in runs) if v is not None]
            axes.plot([place] * len(values), values, "o", color=color, alpha=0.6, linestyle="")
        known = [(place, mean.estimate) for place, mean in enumerate(means) if mean is not None]
        axes.plot(*zip(*known, strict=True), color=color, linestyle=line, label=SYMBOLS[output])
    axes.set_xticks(range(len(_CORNERS)), _CORNERS)
    axes.margins(x=0.25)
    if entry.compared == "ratio":
        axes.set_yscale("log")
    axes.set_title(label_of(results, entry))


def weights_figure(results: Results) -> Figure | None:
    """The factor on the squared error of ε by log-SNR, of every weighting of the study that has a closed form in SNR."""
    names = [
        name
        for name in dict.fromkeys(arm["weighting"] for arm in results["arms"])
        if name in IN_IMAGE_SPACE
    ]
    if len(names) < 2:
        return None
    log_snr = [float(value) for value in results["log_snr"]]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for name in names:
            weights = [IN_IMAGE_SPACE[name](math.exp(s)) / math.exp(s) for s in log_snr]
            axes.plot(log_snr, weights, label=name)
        axes.axvline(0.0, color=MUTED, linestyle=":", linewidth=1.0)
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.set_xlabel("log-SNR (noisier to the right; dotted: as much noise as signal)")
        axes.set_ylabel("weight on the error of ε")
        axes.legend()

    return Figure(
        "weights",
        draw,
        "What the weightings of this study ask for, before they are normalized: the factor on the squared error of ε at each noise "
        "level. The same weighting is a different curve on the error of x₀, by the factor SNR.",
        size=(7.0, 3.0),
    )
