"""The study's first screen: what was trained on what, which arm leads by how much, how sure; a table and a forest plot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import stats

from bench.record import Record
from bench.record.statistics import Interval, holm
from bench.record.study import (
    MEASURES,
    SYMBOLS,
    Measure,
    Results,
    completed,
    floor_of,
    label_of,
    measure,
    primary_measures,
)
from bench.report.page import digits
from bench.report.page.blocks import Block, Cell, Figure, Front, Table
from bench.report.page.figures import INK, MUTED, PALETTE
from bench.report.study.effects import (
    Effect,
    arm_interval,
    contrast,
    has_factorial,
    output_effect,
)
from bench.report.study.figures import main_arms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WEIGHTINGS: Mapping[str, str] = {
    "simple": "plain mean square of the noise",
    "simple_x0": "plain mean square of the image",
    "simple_v": "plain mean square of v",
    "elbo": "as in the variational bound",
    "truncated_snr": "max(SNR, 1) on the image's error",
    "min_snr": "min(SNR, 5) on the image's error",
    "p2": "1/(1 + SNR) on the noise's error",
}
"""Weighting → what it means, for readers who meet it for the first time."""

_OUTPUTS: Mapping[str, str] = {"eps": "the noise", "x0": "the image", "v": "a mix of both"}
_ALPHA = 0.05


def front(record: Record) -> Front | None:
    """The first screen, or None where no arm has both a likelihood and a distance."""
    results = record.results
    leaders = [_leader(results, entry) for entry in primary_measures(results)]
    if not all(leaders):
        return None
    blocks: list[Block] = [_grid(results)]
    if has_factorial(results):
        blocks.append(forest_figure(results))
    return Front((_setting(record), _winners(results, leaders), _sure(record)), blocks)


def _setting(record: Record) -> str:
    data, protocol, arms = record.data or {}, record.protocol, main_arms(record.results)
    outputs = list(dict.fromkeys(arm["output"] for arm in arms))
    weightings = list(dict.fromkeys(arm["weighting"] for arm in arms))
    said = _either([f"{_OUTPUTS.get(o, o)} ({SYMBOLS.get(o, o)})" for o in outputs])
    size = " × ".join(map(str, data.get("shape", [])[1:]))
    return (
        f"One small network was trained on {data.get('train', 'the'):,} images of `{data.get('name')}` ({size} pixels) to predict "
        f"{said}, with {len(weightings)} weightings of the error, on {len(protocol['seeds'])} seeds each; "
        "initial weights, data order and noise are the same for all."
    )


def _either(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


@dataclass(frozen=True)
class _Lead:
    """The best arm by a measure, and what separates it from the next."""

    entry: Measure
    arm: str
    second: str
    effect: Effect | None


def _leader(results: Results, entry: Measure) -> _Lead | None:
    names = [arm["name"] for arm in main_arms(results)]
    means = {name: arm_interval(results, entry, name) for name in names}
    ranked = sorted((mean.estimate, name) for name, mean in means.items() if mean is not None)
    if not ranked:
        return None
    (_, first), *rest = ranked
    if not rest:
        return _Lead(entry, first, "", None)
    second = rest[0][1]
    return _Lead(entry, first, second, contrast(results, entry, {first: 1.0, second: -1.0}))


def _winners(results: Results, leaders: Sequence[_Lead | None]) -> str:
    said = "; ".join(_lead(results, lead) for lead in leaders if lead is not None)
    return f"{said[0].upper()}{said[1:]}."


def _lead(results: Results, lead: _Lead) -> str:
    """`by likelihood, predicting ε weighted `simple` leads: 0.39 [0.38, 0.41] bits/dim less than x₀ weighted `simple``."""
    quality = f"by quality of the samples ({label_of(results, lead.entry)})"
    purpose = quality if lead.entry.key == "fd" else "by likelihood"
    name = _words(results, lead.arm)
    if lead.effect is None or lead.effect.interval is None:
        return f"{purpose}, predicting {name} is the only one with a value"
    next_name = _words(results, lead.second)
    if lead.effect.direction != "better":
        return f"{purpose}, predicting {name} and {next_name} lead within noise of each other"
    return f"{purpose}, predicting {name} leads, {_by(lead.effect)} {next_name}"


def _by(effect: Effect) -> str:
    """By how much less, in the measure's own manner, with the interval."""
    found = effect.interval
    assert found is not None
    ends = (found.low, found.high)
    if effect.measure.compared == "difference":
        low, high = (None if end is None else -end for end in reversed(ends))
        size, between = digits.interval(-found.estimate, low, high)
        return f"{size} {effect.measure.unit} [{between}] below"
    low, high = (None if end is None else 100 * (1 - end) for end in reversed(ends))
    size, between = digits.interval(100 * (1 - found.estimate), low, high)
    return f"{size} % [{between}] below"


def _words(results: Results, name: str) -> str:
    arm = next(arm for arm in results["arms"] if arm["name"] == name)
    return f"{SYMBOLS.get(arm['output'], arm['output'])} weighted `{arm['weighting']}`"


def _sure(record: Record) -> str:
    """What follows for the question, and on how much evidence it rests."""
    from bench.report.study.verdict import by_what

    count = len(record.protocol["seeds"])
    sure = f"brackets are 95 % intervals from {count} paired seed{'s' * (count != 1)}"
    if not has_factorial(record.results):
        return f"{sure[0].upper()}{sure[1:]}."
    return f"**Noise or image?** {by_what(record.results)} ({sure})."


def _grid(results: Results) -> Table:
    """Outputs × weightings by each primary measure; in bold the best and what is within noise of it."""
    entries = primary_measures(results)
    best = {entry.key: _best(results, entry) for entry in entries}
    rows: list[list[str | Cell]] = [
        [
            f"{_OUTPUTS.get(arm['output'], arm['output'])}, {SYMBOLS.get(arm['output'], arm['output'])}",
            f"`{arm['weighting']}`",
            *(_cell(results, entry, arm["name"], best[entry.key]) for entry in entries),
        ]
        for arm in main_arms(results)
    ]
    weightings = dict.fromkeys(arm["weighting"] for arm in main_arms(results))
    terms = "; ".join(f"`{w}`: {WEIGHTINGS.get(w, w)}" for w in weightings)
    return Table(
        ["predicts", "error weighted", *(label_of(results, entry) for entry in entries)],
        rows,
        f"Less is better; **bold**: the best, and what is within noise of it, seed by seed. Weightings: {terms}. bits/dim: what it takes to "
        f"code a held-out pixel, at most. {_about_distance(results)}",
    )


def _about_distance(results: Results) -> str:
    name, distance = label_of(results, measure("fd")), results["distance"]
    floor = floor_of(distance)
    real = "unknown" if floor is None else digits.number(floor)
    if len(primary_measures(results)) > 1:
        between = "" if floor is None else f" (between real ones: {real})"
        return f"{name}: distance of generated from held-out images{between}."
    return (
        f"{name} does not decide here: samples of the Gaussian with the data's mean and covariance have "
        f"{digits.number(distance['control'])}, real images {real}."
    )


def _best(results: Results, entry: Measure) -> frozenset[str]:
    lead = _leader(results, entry)
    if lead is None:
        return frozenset()
    others = [arm["name"] for arm in main_arms(results) if arm["name"] != lead.arm]
    close = {
        name
        for name in others
        if contrast(results, entry, {lead.arm: 1.0, name: -1.0}).direction == "within noise"
    }
    return frozenset({lead.arm, *close})


def _cell(results: Results, entry: Measure, arm: str, best: frozenset[str]) -> Cell:
    found = arm_interval(results, entry, arm)
    if found is None:
        return Cell("–", "muted", "no run ended with a value")
    text = digits.with_interval(found, alone="one seed")
    return Cell(text, "strong" if arm in best else "plain", _lost(results, arm))


def _lost(results: Results, arm: str) -> str:
    runs = completed(results, arm)
    diverged = sum(run["diverged_at"] is not None for run in runs)
    return f"{diverged} of {len(runs)} seeds diverged" if diverged else ""


def forest_figure(results: Results) -> Figure:
    """ε against x₀ at equal weighting, by every measure; filled where the effect survives Holm's adjustment."""
    rows = [
        (entry, weighting, output_effect(results, entry, weighting))
        for entry in MEASURES
        for weighting in ("simple", "simple_x0")
    ]
    known = [row for row in rows if row[2].interval is not None and row[2].interval.low is not None]
    adjusted = holm([p_value(effect) for _, _, effect in known])
    survives = [p < _ALPHA for p in adjusted]
    differences = [i for i, row in enumerate(known) if row[0].compared == "difference"]
    ratios = [i for i, row in enumerate(known) if row[0].compared == "ratio"]
    groups = [indices for indices in (differences, ratios) if indices]

    def draw(canvas: "Canvas") -> None:
        heights = [len(indices) + 1.4 for indices in groups]
        grid = canvas.add_gridspec(len(groups), 1, height_ratios=heights)
        for place, indices in enumerate(groups):
            axes = canvas.add_subplot(grid[place])
            chosen = [(*known[i], survives[i]) for i in indices]
            _forest(axes, results, chosen)

    count = sum(survives)
    said = "; ".join(
        f"{label_of(results, entry)} under {weighting}: {digits.with_interval(effect.interval)}"
        for entry, weighting, effect in known
    )
    return Figure(
        "forest",
        draw,
        f"Predicting ε instead of x₀ at equal weighting, by every yardstick: left of the line ε is better; blue: weighted "
        f"`simple`, orange: `simple_x0`. Bars are 95 % intervals; "
        f"filled marks are the {count} of {len(known)} effects that survive Holm's adjustment for their number.",
        alt=f"Effect of predicting ε instead of x₀. {said}.",
        size=(7.0, 0.26 * len(known) + 1.5),
        narrow=(4.8, 0.26 * len(known) + 1.5),
    )


def _forest(
    axes: "Axes", results: Results, rows: Sequence[tuple[Measure, str, Effect, bool]]
) -> None:
    ratio = rows[0][0].compared == "ratio"
    for place, (_, weighting, effect, survives) in enumerate(rows):
        found = effect.interval
        assert found is not None
        color = PALETTE[0] if weighting == "simple" else PALETTE[1]
        ends = [end for end in (found.low, found.high) if end is not None]
        axes.plot(ends, [place] * len(ends), color=color, linestyle="-")
        face = color if survives else "none"
        axes.plot(
            [found.estimate], [place], marker="o", color=color, markerfacecolor=face, linestyle=""
        )
    names = [f"{label_of(results, entry)}, {weighting}" for entry, weighting, _, _ in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.margins(y=0.5 / len(rows))
    axes.axvline(1.0 if ratio else 0.0, color=MUTED, linestyle="-", linewidth=1.0)
    axes.grid(visible=False, axis="y")
    if ratio:
        axes.set_xscale("log")
    axes.set_xlabel("ratio ε / x₀" if ratio else f"difference ε − x₀, {rows[0][0].unit}", color=INK)


def p_value(effect: Effect) -> float:
    """Two-sided p-value of Student's t, read off the interval: its half width is t_{n−1} standard errors.

    Ratios are handled as differences of logarithms, as their intervals are.
    """
    found = effect.interval
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    on_scale = math.log if effect.measure.compared == "ratio" else float
    middle, low, high = (on_scale(v) for v in (found.estimate, found.low, found.high))
    shift = abs(middle - on_scale(effect.neutral))
    if high == low:
        return 0.0 if shift else 1.0
    return float(2 * stats.t.sf(shift / _standard_error(found, low, high), found.n - 1))


def _standard_error(found: Interval, low: float, high: float) -> float:
    return (high - low) / 2 / float(stats.t.ppf((1 + found.level) / 2, found.n - 1))
