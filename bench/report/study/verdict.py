"""Intervals to sentences. Each is computed; where an interval contains "no effect" the word is *within noise*.

One measure decides each of the article's three claims: bits/dim for *easier* (with the Fréchet distance beside it, because the two
need not agree), the spread of the gradient norm for *stabler*, and for *faster* the steps to beat the best linear denoiser in the error
in which the weighting is plain: ε-MSE under `simple`, x₀-MSE under `simple_x0`. The first two were fixed before any result; the
x₀-MSE threshold was added after a trial in which no run under `simple_x0` reached the one for ε. All other measures are
in the table.
"""

from collections.abc import Iterable

from bench.record.statistics import Interval
from bench.record.study import (
    Measure,
    Results,
    completed,
    floor_of,
    label_of,
    measure,
    primary_measures,
)
from bench.report.page.digits import number, with_interval
from bench.report.study.effects import (
    Effect,
    arm_interval,
    contrast,
    diagonal_effect,
    has_factorial,
    main_effects,
    output_effect,
    reached,
)
from bench.report.study.figures import main_arms

_WEIGHTINGS = ("simple", "simple_x0")
_CLAIMS = (
    ("Easier to learn?", "", ("bits_per_dim", "bits_per_dim")),
    ("", "", ("fd", "fd")),
    (
        "Faster to converge?",
        "the steps to beat the best linear denoiser (in ε-MSE under `simple`, in x₀-MSE under `simple_x0`)",
        ("steps_to_linear", "steps_to_linear_x0"),
    ),
    ("Stabler?", "", ("gradient_spread", "gradient_spread")),
)
"""Title (none: it goes on from the one before), what is compared (none: the measure's own name), measure by weighting."""


def shown(interval: Interval | None, entry: Measure) -> str:
    """An effect with its interval: `−0.31 [−0.52, −0.10]` or `×0.72 [0.61, 0.85]`."""
    if interval is None:
        return "–"
    sign = "×" if entry.compared == "ratio" else ("+" if interval.estimate > 0 else "")
    return with_interval(interval, sign, alone="one seed")


def sentences(results: Results) -> list[str]:
    """The verdict, most important first; each sentence stands alone."""
    found = [f"**Noise or image?** {by_what(results)}."] if has_factorial(results) else []
    found.append(_best(results))
    if has_factorial(results):
        found += _claims(results)
        found += [_output_or_weighting(results), _diagonal(results)]
    rest = (*_time_input(results), *_divergence(results), *_failures(results))
    return [sentence for sentence in (*found, *rest) if sentence]


def _best(results: Results) -> str:
    """Which arm leads in likelihood and which in distance, and whether the next one is within noise of it."""
    entries = primary_measures(results)
    parts = [_leader(results, entry) for entry in entries]
    real = floor_of(results.get("distance", {})) if len(entries) > 1 else None
    floor = "" if real is None else f" (real against real: {number(real)})"
    return (
        f"**Best arms.** {'; '.join(part for part in parts if part)}{floor}." if any(parts) else ""
    )


def _leader(results: Results, entry: Measure) -> str:
    names = [arm["name"] for arm in main_arms(results)]
    means = {name: arm_interval(results, entry, name) for name in names}
    ranked = sorted((mean.estimate, name) for name, mean in means.items() if mean is not None)
    if not ranked:
        return ""
    least, first = ranked[0]
    text = f"{label_of(results, entry)}: `{first}` with {number(least)}"
    if len(ranked) > 1:
        value, second = ranked[1]
        effect = contrast(results, entry, {first: 1.0, second: -1.0})
        text += f", before `{second}` with {number(value)} ({_LEAD[effect.direction]})"
    return text


_LEAD = {
    "better": "the difference is beyond noise",
    "worse": "the difference is beyond noise",
    "within noise": "within noise",
    "unknown": "too few seeds to tell",
}


def _claims(results: Results) -> list[str]:
    """One sentence per titled row of `_CLAIMS`, with the rows that go on from it."""
    found: list[str] = []
    silent = {"fd"} - {entry.key for entry in primary_measures(results)}
    for title, what, keys in _CLAIMS:
        if silent & set(keys):
            continue
        clauses = [
            _clause(results, measure(key), weighting)
            for key, weighting in zip(keys, _WEIGHTINGS, strict=True)
        ]
        text = f"by {what or label_of(results, measure(keys[0]))}: {', '.join(clauses)}"
        if title:
            found.append(f"**{title}** Outputting ε instead of x₀ at equal weighting, {text}.")
        else:
            found[-1] = f"{found[-1][:-1]}; {text}."
    return found


def _clause(results: Results, entry: Measure, weighting: str) -> str:
    effect = output_effect(results, entry, weighting)
    word = "" if effect.direction == "unknown" else f"{effect.direction}, "
    return f"under `{weighting}` {word}{_text(results, effect, weighting)}"


def _text(results: Results, effect: Effect, weighting: str) -> str:
    """The interval; without one, on how many seeds each output has a value at all."""
    if effect.interval is not None:
        return shown(effect.interval, effect.measure)
    counts = [reached(results, effect.measure, f"{output}/{weighting}") for output in ("eps", "x0")]
    (of_eps, seeds), (of_x0, _) = counts
    return f"no ratio (ε got there on {of_eps} of {seeds} seeds, x₀ on {of_x0})"


def _output_or_weighting(results: Results) -> str:
    parts = []
    for entry in primary_measures(results):
        output, weighting, interaction = main_effects(results, entry)
        parts.append(
            f"{label_of(results, entry)}: output ε − x₀ {shown(output.interval, entry)}, "
            f"weighting `simple` − `simple_x0` {shown(weighting.interval, entry)}, "
            f"interaction {shown(interaction.interval, entry)} ({_noise(interaction)})"
        )
    return f"**Output or weighting?** {'; '.join(parts)}."


_ANSWERS = {
    ("better", "better"): "The noise: it is better under both weightings",
    ("worse", "worse"): "The image: it is better under both weightings",
    ("within noise", "within noise"): "It does not show here: within noise under both weightings",
    ("better", "worse"): (
        "Neither as such: each output wins under the weighting that is plain in its own space and loses under the other"
    ),
}


def by_what(results: Results) -> str:
    """The answer, and the yardsticks that it rests on."""
    names = " and by ".join(label_of(results, entry) for entry in primary_measures(results))
    return f"{_answer(results)}, by {names}"


def _answer(results: Results) -> str:
    """The title's question in a few plain words, from likelihood and distance at equal weighting."""
    entries = primary_measures(results)
    found = {
        (
            output_effect(results, entry, "simple").direction,
            output_effect(results, entry, "simple_x0").direction,
        )
        for entry in entries
    }
    agreed = _ANSWERS.get(next(iter(found))) if len(found) == 1 else None
    return agreed or "It depends on the weighting and on the yardstick; the table below says how"


def _noise(effect: Effect) -> str:
    return {
        "within noise": "within noise",
        "unknown": "unknown",
    }.get(effect.direction, "the effect of the output depends on the weighting")


def _diagonal(results: Results) -> str:
    said = ", ".join(
        f"{label_of(results, entry)} {shown(effect.interval, entry)} ({effect.direction})"
        for entry in primary_measures(results)
        for effect in [diagonal_effect(results, entry)]
    )
    return f"**What is usually compared**, ε with its plain mean square against x₀ with its own, mixes both: {said}."


def _time_input(results: Results) -> Iterable[str]:
    names = {arm["name"] for arm in results["arms"]}
    entry = measure("eps_mse")
    texts = []
    for network, what in (
        ("blind", "the same network with t held constant"),
        ("article", "the article's two convolutions without t"),
    ):
        name = f"eps/simple ({network})"
        if {name, "eps/simple"} <= names:
            effect = contrast(results, entry, {name: 1.0, "eps/simple": -1.0})
            texts.append(f"{what} {shown(effect.interval, entry)} ({effect.direction})")
    if texts:
        yield f"**Without a time input**, ε-MSE over log-SNR relative to the U-Net that has one: {'; '.join(texts)}."


def _divergence(results: Results) -> Iterable[str]:
    for arm in results["arms"]:
        runs = completed(results, arm["name"])
        steps = [run["diverged_at"] for run in runs if run["diverged_at"] is not None]
        if steps:
            when = ", ".join(map(str, steps))
            yield f"`{arm['name']}` diverged on {len(steps)} of {len(runs)} seeds (steps {when})."


def _failures(results: Results) -> Iterable[str]:
    for run in results["runs"]:
        if "failed" in run:
            yield f"`{run['arm']}`, seed {run['seed']}, broke: {run['failed']}"
