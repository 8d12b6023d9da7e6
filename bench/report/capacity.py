"""The section "What does a bottleneck cost?": the price of rank h for every output, over the levels of noise."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bench.record import Record
from bench.report.page.blocks import Block, Figure, Note, Paragraph, Section, Table
from bench.report.page.figures import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "What does a bottleneck cost?"
NAMES = {
    "x0": "x₀",
    "v": "v",
    "eps": "ε",
    "flow": "flow",
    "edm": "EDM's skip",
    "best skip": "best skip",
}
_EVERY = 4
_FLOOR = 1e-12

_METHOD = (
    "A network that is narrower than its data cannot denoise every direction. Whatever it outputs, its estimate of x₀ contains a "
    "fixed multiple of its input, the *skip*: 0 for x₀, √ᾱ for v, 1/√ᾱ for ε. A direction that the network drops is left to the skip, and that "
    "costs more the farther the skip lies from the best gain of that direction. For linear networks, one per level of noise, on centred Gaussian data the "
    "price is exact. It is silent about networks at least as wide as the data."
)


def section(records: Sequence[Record]) -> Section | None:
    """One table and one picture for each data set and rank; None where there is no such record."""
    mine = [record for record in records if record.kind == "capacity"]
    if not mine:
        return None
    latest = {(r.data or {}).get("name", "") + f", rank {r.results['rank']}": r for r in mine}
    blocks: list[Block] = [Paragraph(_METHOD)]
    for k, (name, record) in enumerate(latest.items()):
        blocks += _blocks(name, record.results, f"capacity-{k + 1}")
    return Section(
        TITLE,
        blocks,
        data={name: _without_spectrum(record.results) for name, record in latest.items()},
        headlines=[f"{name}: {verdict(record.results)}" for name, record in latest.items()],
    )


def verdict(results: Mapping[str, Any]) -> str:
    """Which output is cheapest at which levels, in one sentence."""
    rank, dims = results["rank"], results["dims"]
    if results["cheapest"] is None:
        return f"rank {rank} is not below D = {dims}: capacity makes no difference between outputs."
    ranges, k = [], 0
    for name, run in groupby(results["cheapest"]):
        count = len(list(run))
        first, last = results["log_snr"][k], results["log_snr"][k + count - 1]
        where = f"at log-SNR {first:g}" if count == 1 else f"from log-SNR {first:g} to {last:g}"
        ranges.append(f"{NAMES[name]} {where}")
        k += count
    return f"of x₀, v and ε the cheapest is {', then '.join(ranges)}."


def as_text(results: Mapping[str, Any]) -> str:
    """The table for the terminal."""
    lines = [
        f"D = {results['dims']}, 99 % of the variance in {results['intrinsic']} directions, spectrum of {results['spectrum_of']}",
        f"excess of the best linear network of rank {results['rank']}, mean over dims in squared units of x0:",
        "",
        f"{'log-SNR':>8} {'least error':>12}"
        + "".join(f"{name:>12}" for name in results["excess"]),
    ]
    for k in range(0, len(results["log_snr"]), _EVERY):
        cells = "".join(f"{column[k]:12.4g}" for column in results["excess"].values())
        lines.append(f"{results['log_snr'][k]:8g} {results['least_error'][k]:12.4g}{cells}")
    return "\n".join([*lines, "", verdict(results)])


def _blocks(name: str, results: Mapping[str, Any], key: str) -> list[Block]:
    rows = [
        (
            f"{results['log_snr'][k]:g}",
            f"{results['least_error'][k]:.3g}",
            *(f"{column[k]:.3g}" for column in results["excess"].values()),
        )
        for k in range(0, len(results["log_snr"]), _EVERY)
    ]
    header = ("log-SNR", "least error", *(NAMES[output] for output in results["excess"]))
    caption = (
        f"{name}: D = {results['dims']}, 99 % of the variance in {results['intrinsic']} directions. Excess of the best linear network over "
        "the best denoiser, whose own error is the second column; means over dims in squared units of x₀."
    )
    if results["cheapest"] is None:
        return [Note(f"{name}: {verdict(results)}")]
    figure = Figure(
        key,
        lambda canvas: draw(canvas, results),
        f"{name}: the price of rank {results['rank']} over log-SNR (noise on the left).",
        alt=f"{name}: {verdict(results)}",
    )
    return [Table(header, rows, caption=caption), figure]


def draw(canvas: "Canvas", results: Mapping[str, Any]) -> None:
    """Excess of every output over log-SNR, on a logarithmic axis that ends at 1e-12."""
    axes = canvas.subplots()
    levels = results["log_snr"]
    for color, (name, values) in zip(PALETTE, results["excess"].items(), strict=False):
        axes.plot(levels, [max(value, _FLOOR) for value in values], color=color, label=NAMES[name])
    axes.plot(levels, results["least_error"], color=PALETTE[-1], lw=1, label="least error")
    axes.set(yscale="log", xlabel="log-SNR", ylabel="squared error of x₀, mean over dims")
    axes.legend(ncols=2)


def _without_spectrum(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key != "spectrum"}
