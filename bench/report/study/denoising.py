"""Pictures of denoising: each arm's terms of the bound above the least loss, samples beside real images, and the way to them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.record.pictures import decode, tiled
from bench.record.study import Results
from bench.report.page.blocks import Figure
from bench.report.page.digits import number
from bench.report.page.figures import MUTED
from bench.report.study.figures import STYLES, geometric, judged, label, main_arms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_COLUMNS = 10
_SHOWN = 20
Picture = Mapping[str, Any]


# ---- terms of the bound ----------------------------------------------------------------------


def terms_figure(results: Results) -> Figure | None:
    """L_t of every arm over t, and how far above the least loss; None in records that do not hold it."""
    if "least" not in results:
        return None
    least = results["least"]
    drawn = [
        (label(arm), style, values)
        for arm, style in zip(main_arms(results), STYLES, strict=False)
        if (values := _terms(results, arm))
    ]
    floor = _in_bits(least, least["training"]["value"])
    memory = _in_bits(least, least["heldout"]["value"])
    steps = [t for t, factor in zip(least["t"], least["factor"], strict=True) if factor is not None]

    def draw(canvas: "Canvas") -> None:
        left, right = canvas.subplots(1, 2, sharex=True)
        for _, style, values in drawn:
            left.plot(steps, values, **style)
        left.plot(steps, floor, color=MUTED, linestyle="-", linewidth=1.0)
        left.plot(steps, memory, color=MUTED, linestyle=":")
        for name, style, values in drawn:
            above = [value - low for value, low in zip(values, floor, strict=True)]
            right.plot(steps, above, label=name, **style)
        left.set_title("L_t")
        right.set_title("L_t above the least loss")
        for axes in (left, right):
            axes.set_yscale("log")
            axes.set_xlabel("t (noisier to the right)")
        left.set_ylabel("bits/dim")
        every = [value for values in (*(line[-1] for line in drawn), memory) for value in values]
        left.set_ylim(0.5 * min(every), 2 * max(every))
        right.plot([], [], color=MUTED, linestyle="-", linewidth=1.0, label="least loss")
        right.plot([], [], color=MUTED, linestyle=":", label="memory, held out")
        canvas.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    said = "; ".join(
        f"{name}: {number(values[0])} at t = {steps[0]}, {number(values[-1])} at t = {steps[-1]}"
        for name, _, values in drawn
    )
    return Figure(
        "bound-terms",
        draw,
        "The bound's terms L_t on held-out images, one arm a line (geometric mean over seeds). Grey: the least that L_t can be on the "
        "training images, which a network reaches by memorizing them; dotted: what that same network loses on held-out images. "
        "Where an arm lies below the dotted line it has learned more than its training images; where a line of the right panel ends, the "
        "arm is within sampling noise of the least loss.",
        alt=f"L_t in bits/dim. {said}.",
        size=(7.0, 3.9),
        narrow=(4.2, 6.8),
    )


def _terms(results: Results, arm: Mapping[str, Any]) -> list[float]:
    runs = judged(results, arm["name"])
    if not runs:
        return []
    return _in_bits(results["least"], geometric([run["final"]["x0_mse_by_bin"] for run in runs]))


def _in_bits(least: Mapping[str, Any], errors: Sequence[float]) -> list[float]:
    """Errors of x₀ per dimension as terms of the bound, in bits/dim, at the steps t ≥ 2."""
    return [
        factor * error / math.log(2)
        for factor, error in zip(least["factor"], errors, strict=True)
        if factor is not None
    ]


# ---- samples ---------------------------------------------------------------------------------


def samples_figure(results: Results) -> Figure | None:
    """Samples of each arm's first seed beside their nearest training images; above them real images; None without any."""
    rows = list(_sheets(results))
    if not any("grid" in run for run in results["runs"]):
        return None
    lines = sum(-(-min(left[1]["shape"][0], _SHOWN) // _COLUMNS) for left, _ in rows)

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(len(rows), 2, squeeze=False).flat
        for axes, side in zip(panels, (side for row in rows for side in row), strict=True):
            _show(axes, side)

    return Figure(
        "samples",
        draw,
        "Samples of each arm (first seed), not selected: the k-th picture of every arm starts from the same noise. Beside them the nearest "
        "training image of each, in mean square: a sample that equals it is a copy. On top real held-out images, and pictures that have "
        "only the mean and the covariance of real ones.",
        alt=f"Sheets of samples of {len(rows)} rows: {', '.join(left[0] for left, _ in rows)}; each beside its nearest training images.",
        size=(7.0, 0.36 * lines + 0.34 * len(rows)),
        narrow=(4.2, 0.86 * lines + 0.7 * len(rows)),
    )


_Side = tuple[str, Picture]


def _sheets(results: Results) -> Iterator[tuple[_Side, _Side | None]]:
    """Left and right picture of each row, with their titles."""
    known = results.get("pictures", {})
    if {"real", "control"} <= set(known):
        yield ("real, held out", known["real"]), ("same mean and covariance", known["control"])
    for arm in results["arms"]:
        run = next((run for run in judged(results, arm["name"]) if "grid" in run), None)
        if run is not None:
            nearest = ("nearest training images", run["nearest"]) if "nearest" in run else None
            yield (label(arm), run["grid"]), nearest


def _show(axes: "Axes", side: _Side | None) -> None:
    axes.set_axis_off()
    if side is not None:
        title, picture = side
        sheet = tiled(decode(dict(picture))[:_SHOWN], _COLUMNS)
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="none")
        axes.set_title(title, fontsize=8.5, fontweight="normal")


# ---- the way from noise ----------------------------------------------------------------------


def trajectory_figure(results: Results) -> Figure | None:
    """x̂₀ along the sampler, every arm from the same noise; None where no run holds it."""
    found = [
        (label(arm), run["trajectory"])
        for arm in results["arms"]
        for run in judged(results, arm["name"])
        if "trajectory" in run
    ]
    if not found:
        return None
    count = found[0][1]["shape"][0] // len(found[0][1]["t"])
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    return Figure(
        "trajectories",
        _draw_trajectories(found, rows, columns),
        "What each arm takes the image to be on the way from noise (left) to the sample (right): x̂₀ at "
        f"{len(found[0][1]['t'])} of the sampler's steps t, {count} samples, the same noise for every arm.",
        alt=f"x̂₀ of {', '.join(name for name, _ in found)} at t = {', '.join(map(str, found[0][1]['t']))}.",
        size=(7.0, rows * (0.27 * count + 0.55)),
        narrow=(4.2, len(found) * (0.47 * count + 0.6)),
    )


def _draw_trajectories(
    found: Sequence[tuple[str, Picture]], rows: int, columns: int
) -> "Callable[[Canvas], None]":
    def draw(canvas: "Canvas") -> None:
        panels = list(canvas.subplots(rows, columns, squeeze=False).flat)
        for axes, (name, picture) in zip(panels, found, strict=False):
            moments = len(picture["t"])
            sheet = tiled(decode(dict(picture)), moments)
            axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="none")
            wide = picture["shape"][3] + 1
            axes.set_xticks(
                [wide * (k + 0.5) for k in range(moments)], map(str, picture["t"]), fontsize=6.5
            )
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.set_title(name, fontsize=8.5, fontweight="normal")
        for axes in panels[len(found) :]:
            axes.set_visible(False)

    return draw
