"""Intervals to sentences. Each is computed; where an interval contains "no effect" the word is *within noise*.

The measure that decides each of the article's three claims is fixed here, before any result: bits/dim for *easier*, the steps to
beat the best linear denoiser for *faster*, the spread of the gradient norm for *stabler*. The other measures are reported beside them.
"""

from collections.abc import Iterable, Sequence

from bench.statistics import Interval
from bench.study.effects import (
    Effect,
    Measure,
    Results,
    completed,
    contrast,
    diagonal_effect,
    has_factorial,
    main_effects,
    measure,
    output_effect,
    value_of,
)

_WEIGHTINGS = ("simple", "simple_x0")
_CLAIMS = {
    "easier": (
        "Easier to learn?",
        "bits_per_dim",
        ("eps_mse", "fd"),
    ),
    "faster": ("Faster to converge?", "steps_to_linear", ("area",)),
    "stabler": ("Stabler?", "gradient_spread", ("loss_noise",)),
}


def number(value: float) -> str:
    """Three significant digits, a real minus sign, no exponent for everyday sizes."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−")


def shown(interval: Interval | None, entry: Measure) -> str:
    """An effect with its interval: `−0.31 [−0.52, −0.10]` or `×0.72 [0.61, 0.85]`."""
    if interval is None:
        return "–"
    sign = "×" if entry.compared == "ratio" else ("+" if interval.estimate > 0 else "")
    if interval.low is None or interval.high is None:
        return f"{sign}{number(interval.estimate)} (one seed)"
    return f"{sign}{number(interval.estimate)} [{number(interval.low)}, {number(interval.high)}]"


def sentences(results: Results) -> list[str]:
    """The verdict, most important first; each sentence stands alone."""
    found = []
    if has_factorial(results):
        found += [_claim(results, name) for name in _CLAIMS]
        found += [_output_or_weighting(results), _diagonal(results)]
    return (
        found + list(_time_input(results)) + list(_divergence(results)) + list(_failures(results))
    )


def _claim(results: Results, name: str) -> str:
    title, primary, others = _CLAIMS[name]
    entry = measure(primary)
    effects = [output_effect(results, entry, weighting) for weighting in _WEIGHTINGS]
    details = [_pair(results, measure(key)) for key in others]
    return f"**{title}** {_direction(effects)}: {_pair(results, entry)}. Beside it: {'; '.join(details)}."


def _pair(results: Results, entry: Measure) -> str:
    texts = []
    for weighting in _WEIGHTINGS:
        effect = output_effect(results, entry, weighting)
        text = (
            shown(effect.interval, entry)
            if effect.interval
            else _unreached(results, entry, weighting)
        )
        texts.append(f"{text} under `{weighting}`")
    return f"{entry.label} {', '.join(texts)}"


def _unreached(results: Results, entry: Measure, weighting: str) -> str:
    """Why there is no ratio: which of the two outputs has no value, and how often."""
    parts = []
    for output in ("eps", "x0"):
        runs = completed(results, f"{output}/{weighting}")
        count = sum(value_of(results, run, entry) is not None for run in runs)
        parts.append(f"{output} {count} of {len(runs)}")
    return f"no ratio (reached: {', '.join(parts)} seeds)"


def _direction(effects: Sequence[Effect]) -> str:
    directions = [effect.direction for effect in effects]
    words = {
        "better": "better than outputting x₀",
        "worse": "worse than outputting x₀",
        "within noise": "within noise of outputting x₀",
        "unknown": "not comparable with outputting x₀",
    }
    if directions[0] == directions[1]:
        return f"At equal weighting, outputting ε is {words[directions[0]]} under both weightings"
    return (
        f"Outputting ε is {words[directions[0]]} under `simple`, "
        f"but {words[directions[1]]} under `simple_x0`"
    )


def _output_or_weighting(results: Results) -> str:
    parts = []
    for key in ("bits_per_dim", "fd"):
        entry = measure(key)
        output, weighting, interaction = main_effects(results, entry)
        parts.append(
            f"{entry.label}: output ε − x₀ {shown(output.interval, entry)}, "
            f"weighting `simple` − `simple_x0` {shown(weighting.interval, entry)}, "
            f"interaction {shown(interaction.interval, entry)} ({_noise(interaction)})"
        )
    return f"**Output or weighting?** {'; '.join(parts)}."


def _noise(effect: Effect) -> str:
    return {
        "within noise": "within noise",
        "unknown": "unknown",
    }.get(effect.direction, "the effect of the output depends on the weighting")


def _diagonal(results: Results) -> str:
    entry, distance = measure("bits_per_dim"), measure("fd")
    bits, fd = diagonal_effect(results, entry), diagonal_effect(results, distance)
    return (
        "**What is usually compared**, ε with its plain mean square against x₀ with its own, mixes both: "
        f"{entry.label} {shown(bits.interval, entry)} ({bits.direction}), "
        f"{distance.label} {shown(fd.interval, distance)} ({fd.direction})."
    )


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


def any_failed(results: Results) -> bool:
    """Whether a run broke; a run that diverged did not."""
    return any("failed" in run for run in results["runs"])
