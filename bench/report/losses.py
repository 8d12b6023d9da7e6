"""The section "How small can the loss be?": the least loss of a data set, and validation losses with their intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from bench.record import Record
from bench.report.page.blocks import Block, Figure, Paragraph, Section, Table
from bench.report.page.figures import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "How small can the loss be?"
SPACES: Mapping[str, Callable[[float], float]] = {
    "x0": lambda level: 1.0,
    "eps": math.exp,
    "v": lambda level: 1 + math.exp(level),
}
"""Factor on the squared error of x0, by the space in which it is written; a function of log-SNR."""

_METHOD = (
    "A diffusion loss does not end at 0: noisy data do not determine the clean ones. The *least training loss* belongs to the network "
    "that has memorized its training data. On held-out data that same network errs as the second column says, and between the two "
    "lies what a network that generalizes can reach. The best *linear* denoiser is a mark to beat."
)


def section(records: Sequence[Record]) -> Section | None:
    """A table and a picture for each data set, then the validation losses; None where there are neither."""
    least = {(r.data or {}).get("name", ""): r for r in records if r.kind == "optimal-loss"}
    losses = [record for record in records if record.kind == "loss"]
    if not least and not losses:
        return None
    blocks: list[Block] = [Paragraph(_METHOD)] if least else []
    for k, (name, record) in enumerate(least.items()):
        blocks += _least_blocks(name, record.results, f"optimal-loss-{k + 1}")
    if losses:
        blocks.append(_loss_table(losses))
    return Section(
        TITLE,
        blocks,
        data={
            "optimal_loss": {name: record.results for name, record in least.items()},
            "losses": [record.results for record in losses],
        },
        headlines=[f"{name}: {memorizes(record.results)}" for name, record in least.items()],
    )


def memorizes(results: Mapping[str, Any]) -> str:
    """Down to which level of log-SNR the memorizing denoiser is worse on held-out data than the linear one."""
    rows = zip(
        results["log_snr"], results["heldout"]["value"], results["linear"]["heldout"], strict=True
    )
    worse = [level for level, _, _ in takewhile(lambda row: row[1] > row[2], rows)]
    if not worse:
        return "the denoiser that memorizes is no worse on held-out data than the best linear one."
    return (
        f"from log-SNR {worse[-1]:g} upwards the least training loss is memory: on held-out data its denoiser is worse than the "
        "best linear one."
    )


def optimal_text(results: Mapping[str, Any], space: str) -> str:
    """The table for the terminal, in the space of an output."""
    lines = [
        f"least loss by log-SNR, mean over dims of the squared error of {space}; each answer uses {results['used']} training examples",
        "",
        f"{'log-SNR':>8}{'training':>24}{'held out':>24}{'linear':>12}{'linear, held out':>18}",
    ]
    for k, level in enumerate(results["log_snr"]):
        factor = SPACES[space](level)
        parts = [
            f"{factor * results[p]['value'][k]:.4g} ± {factor * results[p]['stderr'][k]:.1g}"
            for p in ("training", "heldout")
        ]
        linear = [factor * results["linear"][p][k] for p in ("training", "heldout")]
        lines.append(f"{level:8g}{parts[0]:>24}{parts[1]:>24}{linear[0]:12.4g}{linear[1]:18.4g}")
    return "\n".join([*lines, "", *_bias_lines(results), memorizes(results)])


def _bias_lines(results: Mapping[str, Any]) -> list[str]:
    """What the subset's bias is estimated to be, relative to the value, where there is one."""
    relative = [
        abs(bias / value)
        for part in ("training", "heldout")
        for bias, value in zip(results[part]["bias"], results[part]["value"], strict=True)
        if value > 0
    ]
    if not any(relative):
        return []
    return [f"estimated bias of the subset: up to {100 * max(relative):.2g} % of the value", ""]


def loss_text(results: Mapping[str, Any]) -> str:
    """Each loss with its interval, and the paired difference with its verdict."""
    lines = [
        f"{row['name']}: {_with_interval(row)}   {row['subject']}; {row['evaluations']} evaluations, "
        f"{row['examples']} examples"
        for row in results["losses"]
    ]
    gap = results["difference"]
    if gap is not None:
        lines.append(f"A − B: {_with_interval(gap)}   {better(gap)}")
    return "\n".join(lines)


def better(gap: Mapping[str, Any]) -> str:
    """What a paired difference says."""
    if gap["low"] is None:
        return "a model diverged"
    if gap["low"] <= 0 <= gap["high"]:
        return "within noise: more evaluations may tell"
    return f"{'A' if gap['high'] < 0 else 'B'} has the smaller loss"


def _with_interval(figures: Mapping[str, Any]) -> str:
    if figures["value"] is None or figures["low"] is None:
        return "not finite"
    return f"{figures['value']:.6g} [{figures['low']:.6g}, {figures['high']:.6g}]"


def _least_blocks(name: str, results: Mapping[str, Any], key: str) -> list[Block]:
    rows = [
        (
            f"{level:g}",
            f"{results['training']['value'][k]:.3g} ± {results['training']['stderr'][k]:.1g}",
            f"{results['heldout']['value'][k]:.3g} ± {results['heldout']['stderr'][k]:.1g}",
            f"{results['linear']['training'][k]:.3g}",
            f"{results['linear']['heldout'][k]:.3g}",
        )
        for k, level in enumerate(results["log_snr"])
    ]
    header = (
        "log-SNR",
        "least training loss",
        "same, held out",
        "linear, training",
        "linear, held out",
    )
    caption = (
        f"{name}: squared error of x₀, mean over {results['dims']} dims, with standard errors; times SNR it is the loss in ε. "
        f"Each answer uses {results['used']} training examples."
    )
    figure = Figure(
        key,
        lambda canvas: draw(canvas, results),
        f"{name}: least loss over log-SNR, in v: it is of one order of size at all levels.",
        alt=f"{name}: {memorizes(results)}",
    )
    return [Table(header, rows, caption=caption), figure]


def draw(canvas: "Canvas", results: Mapping[str, Any], space: str = "v") -> None:
    """The four curves over log-SNR."""
    axes = canvas.subplots()
    levels = results["log_snr"]
    factors = [SPACES[space](level) for level in levels]
    curves = {
        "least training loss": results["training"]["value"],
        "same, held out": results["heldout"]["value"],
        "linear, training": results["linear"]["training"],
        "linear, held out": results["linear"]["heldout"],
    }
    for color, (label, values) in zip(PALETTE, curves.items(), strict=False):
        heights = [max(f * v, 1e-8) for f, v in zip(factors, values, strict=True)]
        axes.plot(levels, heights, color=color, label=label)
    axes.set(yscale="log", xlabel="log-SNR", ylabel=f"squared error of {space}, mean over dims")
    axes.legend()


def _loss_table(records: Sequence[Record]) -> Table:
    rows = [row for record in records for row in _loss_rows(record)]
    return Table(
        ("model", "data", "weighting", "loss [95 % interval]"),
        rows,
        caption="Validation losses: means over data and all steps; differences are paired, with the same steps and noise for both.",
    )


def _loss_rows(record: Record) -> list[tuple[str, str, str, str]]:
    """Each model, then the difference of two."""
    name, weighting = (record.data or {}).get("name", ""), record.protocol["weighting"]
    gap = record.results["difference"]
    said = [(f"{row['name']}: {row['subject']}", row) for row in record.results["losses"]]
    said += [] if gap is None else [(f"A − B: {better(gap)}", gap)]
    return [(what, name, weighting, _with_interval(figures)) for what, figures in said]
