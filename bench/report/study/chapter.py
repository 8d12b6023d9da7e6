"""Section on the study: verdict, what was compared, paired intervals, curves, samples."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.record import Record
from bench.record.environment import machine_label, torch_label
from bench.record.kinds import violations
from bench.record.study import (
    MEASURES,
    Measure,
    Results,
    completed,
    label_of,
    linear_errors,
    measure,
    value_of,
)
from bench.report.page.blocks import Block, Cell, Fold, Note, Paragraph, Section, Table, Tone
from bench.report.page.digits import number
from bench.report.study.denoising import samples_figure, terms_figure, trajectory_figure
from bench.report.study.distances import distance_tables
from bench.report.study.effects import (
    Effect,
    arm_interval,
    has_factorial,
    main_effects,
    output_effect,
    reached,
)
from bench.report.study.figures import (
    convergence_figure,
    errors_figure,
    losses_figure,
    relative_figure,
    time_figure,
)
from bench.report.study.front import front
from bench.report.study.pictures import interaction_figure, weights_figure
from bench.report.study.verdict import sentences, shown

_TONES: Mapping[str, Tone] = {
    "better": "good",
    "worse": "bad",
    "within noise": "muted",
    "unknown": "muted",
}


def section(records: Sequence[Record]) -> Section | None:
    """The newest study of images among the records, or None."""
    studies = [r for r in records if r.kind == "study" and "distance" in r.results]
    if not studies:
        return None
    *earlier, record = studies
    lines = sentences(record.results)
    return Section(
        title="Study: noise or image?",
        blocks=_blocks(record),
        data=_data(record.results, lines),
        headlines=lines,
        failed=bool(violations(record)),
        front=front(record),
        left_out=[(old.name, f"followed by {record.name}") for old in earlier],
    )


def apart(record: Record) -> str:
    """Studies on other data, of another size or on another machine stand side by side, each for itself."""
    if record.kind != "study" or "distance" not in record.results:
        return ""
    protocol, data = record.protocol, record.data or {}
    return (
        f"{data.get('name')}, {len(protocol['seeds'])} seeds, {protocol['steps']:,} steps, "
        f"{len(protocol['arms'])} arms, {machine_label(record.environment)}, {torch_label(record.environment)}"
    )


def rank(record: Record) -> float:
    """The study with the most runs answers first."""
    return float(len(record.results["runs"]))


def _blocks(record: Record) -> list[Block]:
    results = record.results
    blocks: list[Block] = [Paragraph(_what(record))]
    if has_factorial(results):
        blocks += [_effects_table(results), Note(_about_intervals(record))]
    blocks += [_arms_table(results), Note(_about_distance(results)), *distance_tables(results)]
    blocks += [
        figure for figure in (interaction_figure(results), weights_figure(results)) if figure
    ]
    blocks += [errors_figure(results), relative_figure(results)]
    blocks += [figure for figure in (terms_figure(results),) if figure]
    blocks += [convergence_figure(results), losses_figure(results)]
    last = (samples_figure(results), trajectory_figure(results), time_figure(results))
    blocks += [figure for figure in last if figure]
    return [*blocks, Fold("Every run, and how the learning rates were chosen", _details(results))]


def _what(record: Record) -> str:
    data, protocol = record.data or {}, record.protocol
    low, high = record.results["log_snr"][-1], record.results["log_snr"][0]
    return (
        f"Each arm was trained {len(protocol['seeds'])} times for {protocol['steps']} steps of "
        f"{protocol['batch_size']} images on {data.get('train')} images of `{data.get('name')}` "
        f"(T = {protocol['T']}, bins of log-SNR from {number(high)} to {number(low)}) and judged on "
        f"{data.get('heldout')} held-out ones. For one seed all arms share initial weights, data order, "
        "t and noise, bit for bit. Weights are normalized to mean 1 over t, gradients are clipped relative to "
        "their own running norm, and each arm has the learning rate of the common grid at which its own "
        "objective was least, on a seed and on images used for nothing else."
    )


def _about_intervals(record: Record) -> str:
    count = len(record.protocol["seeds"])
    return (
        f"95 % intervals from {count} paired seeds by Student's t with {count - 1} degrees of freedom: wide, and "
        "honest only if the differences are roughly normal, which so few values cannot show. "
        "Green or red where the interval excludes “no effect”, grey where it does not (within noise). "
        "The intervals are not adjusted for their number: about one in twenty excludes “no effect” by chance. "
        "Less is better in every row; ratios are of geometric means."
    )


def _about_distance(results: Results) -> str:
    distance = results["distance"]
    floors = distance["floor"]
    floor = (
        f"{number(min(floors))} … {number(max(floors))} ({len(floors)} disjoint sets)"
        if floors
        else "not available: too few training images"
    )
    return (
        f"{distance['name']} with N = {distance['samples']} generated and N = {distance['samples']} held-out images for every "
        f"arm; between as many *real* training images and the same held-out ones it is {floor}. That is the floor; "
        "values are comparable with this report's only. A loss of one arm is never drawn on the axis of another: by "
        "‖ε − ε̂‖² = SNR·‖x₀ − x̂₀‖² they have different units."
    )


def _effects_table(results: Results) -> Table:
    header = [
        "yardstick",
        "ε − x₀, `simple`",
        "ε − x₀, `simple_x0`",
        "output",
        "weighting",
        "interaction",
    ]
    return Table(header, [_effects_row(results, entry) for entry in MEASURES], _EFFECTS_CAPTION)


_EFFECTS_CAPTION = (
    "Paired effects. The first two columns change only what the network outputs; “output” is their mean, “weighting” is "
    "`simple` against `simple_x0` averaged over outputs, “interaction” is the difference of the first two."
)


def _effects_row(results: Results, entry: Measure) -> list[str | Cell]:
    simple, image = (output_effect(results, entry, w) for w in ("simple", "simple_x0"))
    output, weighting, interaction = main_effects(results, entry)
    cells = [_effect_cell(effect) for effect in (simple, image, output, weighting)]
    depends: Tone = "strong" if interaction.direction in ("better", "worse") else "muted"
    return [
        label_of(results, entry),
        *cells,
        Cell(shown(interaction.interval, entry), depends, interaction.reason),
    ]


def _effect_cell(effect: Effect) -> Cell:
    hint = effect.reason or effect.direction
    return Cell(shown(effect.interval, effect.measure), _TONES[effect.direction], hint)


def _arms_table(results: Results) -> Table:
    header = ["arm", "rate", *(label_of(results, entry) for entry in MEASURES), "diverged"]
    rows = [_arm_row(results, arm) for arm in results["arms"]]
    return Table(header, [*rows, _linear_row(results)], _ARMS_CAPTION)


_ARMS_CAPTION = (
    "Each arm on the common yardsticks: mean over seeds with its own 95 % interval (which is wider than the paired one "
    "above, because it contains what the seeds share). The linear denoiser is the exact posterior mean for Gaussian data."
)


def _arm_row(results: Results, arm: Mapping[str, Any]) -> list[str | Cell]:
    runs = completed(results, arm["name"])
    diverged = sum(run["diverged_at"] is not None for run in runs)
    cells = [_arm_cell(results, entry, arm["name"]) for entry in MEASURES]
    return [f"`{arm['name']}`", f"{arm['rate']:g}", *cells, f"{diverged} of {len(runs)}"]


def _arm_cell(results: Results, entry: Measure, arm: str) -> Cell:
    interval = arm_interval(results, entry, arm)
    count, seeds = reached(results, entry, arm)
    if interval is None:
        text = "not reached" if entry.question == "faster" else "–"
        return Cell(text, "muted", f"0 of {seeds} seeds")
    short = "" if count == seeds else f" ({count} of {seeds} seeds)"
    return Cell(shown(interval, entry).lstrip("×+") + short)


def _linear_row(results: Results) -> list[str | Cell]:
    known = linear_errors(results, "final")
    cells = [number(known[entry.key]) if entry.key in known else "–" for entry in MEASURES]
    return ["best linear denoiser", "–", *cells, "–"]


def _details(results: Results) -> list[Block]:
    return [_terms_table(results), _runs_table(results), _tuning_table(results)]


def _terms_table(results: Results) -> Table:
    header = ["arm", "seed", *(name for name, _ in _TERMS), "standard error", "evaluations"]
    rows = [_terms_row(run) for run in results["runs"] if run.get("final") is not None]
    return Table(header, rows, "The bound on held-out images, term by term, in bits/dim.")


_TERMS = (
    ("L_T (prior)", "prior"),
    ("Σ L_t (diffusion)", "diffusion"),
    ("L₀ (reconstruction)", "reconstruction"),
    ("bits/dim", "bits_per_dim"),
)


def _terms_row(run: Mapping[str, Any]) -> list[str | Cell]:
    terms = run["final"]["bound"]
    return [
        f"`{run['arm']}`",
        str(run["seed"]),
        *(number(terms[key]) for _, key in _TERMS),
        number(terms["stderr"]),
        f"{terms['evaluations']:,}",
    ]


def _runs_table(results: Results) -> Table:
    header = ["arm", "seed", *(entry.key for entry in MEASURES), "clipped", "training", "ended"]
    return Table(header, [_run_row(results, run) for run in results["runs"]], "Every run.")


def _run_row(results: Results, run: Mapping[str, Any]) -> list[str | Cell]:
    start: list[str | Cell] = [f"`{run['arm']}`", str(run["seed"])]
    if "failed" in run:
        return [*start, *["–"] * (len(MEASURES) + 2), Cell(run["failed"], "bad")]
    values = [value_of(results, run, entry) for entry in MEASURES]
    clipped = run["stability"]["clipped"]
    return [
        *start,
        *("–" if value is None else number(value) for value in values),
        "–" if clipped is None else f"{100 * clipped:.0f} %",
        f"{run['training_seconds']:.0f} s",
        run["reason"] or "as planned",
    ]


def _tuning_table(results: Results) -> Table:
    rates = sorted({entry["rate"] for arm in results["arms"] for entry in arm["tuning"]})
    rows = [_tuning_row(arm, rates) for arm in results["arms"]]
    caption = "The arm's own objective on the tuning images after the tuning run, by learning rate; the chosen one is bold."
    return Table(["arm", *(f"{rate:g}" for rate in rates)], rows, caption)


def _tuning_row(arm: Mapping[str, Any], rates: Sequence[float]) -> list[str | Cell]:
    by_rate = {entry["rate"]: entry for entry in arm["tuning"]}
    cells = [_tuning_cell(by_rate.get(rate), rate == arm["rate"]) for rate in rates]
    return [f"`{arm['name']}`", *cells]


def _tuning_cell(entry: Mapping[str, Any] | None, chosen: bool) -> Cell:
    if entry is None or entry.get("objective") is None:
        reason = "not run" if entry is None else entry.get("failed") or entry.get("reason", "")
        return Cell("–", "muted", reason)
    return Cell(number(entry["objective"]), "strong" if chosen else "plain")


def _data(results: Results, lines: Sequence[str]) -> dict[str, Any]:
    """The numbers behind the section, for report.json."""
    effects: dict[str, Any] = {}
    if has_factorial(results):
        for entry in MEASURES:
            output, weighting, interaction = main_effects(results, entry)
            named = {
                "eps_minus_x0_simple": output_effect(results, entry, "simple"),
                "eps_minus_x0_simple_x0": output_effect(results, entry, "simple_x0"),
                "output": output,
                "weighting": weighting,
                "interaction": interaction,
            }
            effects[entry.key] = {key: _effect_json(effect) for key, effect in named.items()}
    arms = {arm["name"]: _arm_json(results, arm["name"]) for arm in results["arms"]}
    return {
        "verdict": list(lines),
        "effects": effects,
        "arms": arms,
        "distance": results["distance"],
    }


def _effect_json(effect: Effect) -> dict[str, Any]:
    return {
        "compared": effect.measure.compared,
        "direction": effect.direction,
        "interval": None if effect.interval is None else effect.interval.as_json(),
        "reason": effect.reason,
    }


def _arm_json(results: Results, arm: str) -> dict[str, Any]:
    intervals = {entry.key: arm_interval(results, measure(entry.key), arm) for entry in MEASURES}
    return {key: None if value is None else value.as_json() for key, value in intervals.items()}
