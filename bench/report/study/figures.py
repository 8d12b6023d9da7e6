"""Figures of the study. No figure shares an axis between losses of different units."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.record.study import SYMBOLS, Results, completed, linear_errors
from bench.report.page.blocks import Figure
from bench.report.page.figures import INK, MUTED, PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (6, 2, 1, 2)),
    (0, (3, 1.4)),
    (0, (8, 2)),
    (0, (1, 1)),
)
STYLES: tuple[dict[str, Any], ...] = tuple(
    {
        "color": PALETTE[k % len(PALETTE)],
        "linestyle": _DASHES[(k + k // len(PALETTE)) % len(_DASHES)],
    }
    for k in range(len(PALETTE) * len(_DASHES))
)
"""Colour and dashes of each arm, the same in every figure."""
_WITHOUT_TIME = ("blind", "article")


def label(arm: Mapping[str, Any]) -> str:
    """How an arm is called in a legend: `ε / simple`."""
    suffix = "" if arm["network"] == "unet" else f" ({arm['network']})"
    return f"{SYMBOLS.get(arm['output'], arm['output'])} / {arm['weighting']}{suffix}"


def main_arms(results: Results) -> list[Mapping[str, Any]]:
    """The arms with the network of the first arm: they differ in output and weighting only."""
    network = results["arms"][0]["network"]
    return [arm for arm in results["arms"] if arm["network"] == network]


def judged(results: Results, arm: str) -> list[Mapping[str, Any]]:
    """The runs of an arm that ended with figures."""
    return [run for run in completed(results, arm) if run["final"] is not None]


def geometric(columns: Sequence[Sequence[float]]) -> list[float]:
    """Geometric mean over runs at each position."""
    return [
        math.exp(math.fsum(map(math.log, values)) / len(values))
        for values in zip(*columns, strict=True)
    ]


def errors_figure(results: Results) -> Figure:
    """ε-MSE and x₀-MSE by log-SNR, every arm on the same held-out noisy images."""

    def draw(canvas: "Canvas") -> None:
        left, right = canvas.subplots(1, 2, sharex=True)
        for axes, key in ((left, "eps_mse_by_bin"), (right, "x0_mse_by_bin")):
            for arm, style in zip(main_arms(results), STYLES, strict=False):
                runs = judged(results, arm["name"])
                if runs:
                    mean = geometric([run["final"][key] for run in runs])
                    axes.plot(results["log_snr"], mean, label=label(arm), **style)
            axes.set_yscale("log")
            axes.set_xlabel("log-SNR (noisier to the right)")
        errors = results["linear"]["final"]
        image = [e * math.exp(-s) for e, s in zip(errors, results["log_snr"], strict=True)]
        left.plot(results["log_snr"], errors, color=MUTED, linestyle=":", label="best linear")
        right.plot(results["log_snr"], image, color=MUTED, linestyle=":", label="best linear")
        left.invert_xaxis()
        left.set_title("ε-MSE")
        right.set_title("x₀-MSE")
        canvas.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return Figure(
        "errors-by-log-snr",
        draw,
        "Held-out error by noise level, as ε-MSE and as x₀-MSE (the same predictions, converted; the two differ by the factor "
        "SNR). Geometric mean over seeds. Dotted: the best linear denoiser.",
        size=(7.0, 3.9),
        narrow=(4.2, 6.8),
    )


def relative_figure(results: Results) -> Figure:
    """Error relative to the best linear denoiser, where ε-MSE and x₀-MSE are one and the same curve."""
    linear = results["linear"]["final"]

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for arm, style in zip(main_arms(results), STYLES, strict=False):
            runs = judged(results, arm["name"])
            if runs:
                errors = geometric([run["final"]["eps_mse_by_bin"] for run in runs])
                ratios = [error / least for error, least in zip(errors, linear, strict=True)]
                axes.plot(results["log_snr"], ratios, label=label(arm), **style)
        axes.axhline(1.0, color=MUTED, linestyle=":", label="best linear")
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.set_xlabel("log-SNR (noisier to the right)")
        axes.set_ylabel("error / error of the best linear denoiser")
        axes.legend(ncols=2)

    return Figure(
        "relative-errors",
        draw,
        "The same errors divided by those of the best linear denoiser: in this ratio ε-MSE and x₀-MSE agree, so that it shows "
        "where in log-SNR each arm is good. Below the dotted line the network knows more than a matrix.",
    )


def convergence_figure(results: Results) -> Figure:
    """Mean ε-MSE and mean x₀-MSE over log-SNR along training, with their thresholds."""
    thresholds = linear_errors(results, "along")

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(1, 2)
        for axes, (key, title) in zip(panels, _CONVERGENCE, strict=True):
            for arm, style in zip(main_arms(results), STYLES, strict=False):
                for number, run in enumerate(completed(results, arm["name"])):
                    points, name = run["points"], label(arm) if number == 0 else None
                    axes.plot(
                        points["steps"], points[key], label=name, **{**style, "linewidth": 1.1}
                    )
            axes.axhline(thresholds[key], color=MUTED, linestyle=":", label="best linear")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("training step")
            axes.set_title(title)
        canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return Figure(
        "convergence",
        draw,
        "The common yardsticks along training, averaged evenly over log-SNR: the mean ε-MSE is the diffusion part of the bound "
        "up to a constant. One line a seed. The thresholds of “faster” are the dotted lines, which no arm set.",
        size=(7.0, 3.9),
        narrow=(4.2, 6.8),
    )


_CONVERGENCE = (("eps_mse", "held-out ε-MSE"), ("x0_mse", "held-out x₀-MSE"))


def losses_figure(results: Results) -> Figure:
    """Each arm's own training loss, every arm on its own axis."""
    arms = list(results["arms"])
    rows = -(-len(arms) // 3)

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(rows, min(3, len(arms)), sharex=True, squeeze=False).flat
        for axes, arm in zip(panels, arms, strict=False):
            for run in completed(results, arm["name"]):
                axes.plot(run["curve"]["steps"], run["curve"]["loss"], linewidth=1.0)
            axes.set_yscale("log")
            axes.set_title(label(arm))
        for axes in list(canvas.axes)[len(arms) :]:
            axes.set_visible(False)
        canvas.supxlabel("training step", fontsize=9.5, color=INK)

    return Figure(
        "own-losses",
        draw,
        "Each arm's own training loss (averages over stretches of the run), one line a seed, **every arm on its own axis**: the "
        "heights of different panels mean different things and cannot be compared.",
        size=(7.0, 1.9 * rows + 0.4),
    )


def time_figure(results: Results) -> Figure | None:
    """What a missing time input costs at each noise level; None where no such arm was run."""
    reference = judged(results, "eps/simple")
    arms = [arm for arm in results["arms"] if arm["network"] in _WITHOUT_TIME]
    present = [(arm, judged(results, arm["name"])) for arm in arms]
    shown = [(arm, runs) for arm, runs in present if runs]
    if not reference or not shown:
        return None
    base = geometric([run["final"]["eps_mse_by_bin"] for run in reference])
    return Figure(
        "without-time",
        _draw_ratios(results["log_snr"], base, shown),
        "ε-MSE of networks without a time input relative to the U-Net that has one, by noise level. *blind*: the same U-Net, "
        "weight for weight, that always sees the same t, so that the difference is the price of the time input alone. "
        "*article*: the article's two convolutions, which are also small.",
    )


def _draw_ratios(
    log_snr: Sequence[float],
    base: Sequence[float],
    shown: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
) -> "Callable[[Canvas], None]":
    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for arm, runs in shown:
            errors = geometric([run["final"]["eps_mse_by_bin"] for run in runs])
            ratios = [error / least for error, least in zip(errors, base, strict=True)]
            axes.plot(log_snr, ratios, marker="o", label=label(arm))
        axes.axhline(1.0, color=MUTED, linestyle=":")
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.set_xlabel("log-SNR (noisier to the right)")
        axes.set_ylabel("ε-MSE relative to ε / simple")
        axes.legend()

    return draw
