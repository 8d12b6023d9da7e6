"""The section "The bound": exact gaps and limits, the price of each reverse variance, the budgeted estimate.

Of several records of one kind the latest counts.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.record import Record
from bench.record.kinds import violations
from bench.report.coverage import coverage_figure
from bench.report.page.blocks import Block, Cell, Figure, Note, Paragraph, Section, Table
from bench.report.page.figures import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Rows = Sequence[Mapping[str, Any]]

_FAMILIES = ("fixed log-SNR ends", "linear", "cosine", "sigmoid")
_PRICES = {
    "identity": "Σ = I",
    "beta": "β_t I",
    "posterior": "β̃_t I",
    "isotropic": "best isotropic",
    "diagonal": "best diagonal",
}
_INTRODUCTION = (
    "For data with a known density the entropy −E ln p is known, and the expected bound of the exact denoiser has a closed "
    "form: no sampling, no trained network. The bound can never be below the entropy; how far it is above is the price "
    "of T steps with a fixed variance."
)
_EULER = (
    "With fixed log-SNR ends the gap falls like 1/T. For linear, cosine and sigmoid with the posterior variance β̃_t it does "
    "not: it tends to γ/2 = 0.2886 nats per dimension, γ being Euler's constant, if β_1 is far below the variances of the data. Close to clean data ᾱ falls linearly in t, "
    "so the log-SNR jumps by ln(t/(t−1)) at step t however fine the schedule, and Σ ½[1/k − ln(1 + 1/k)] = γ/2 is the "
    "price of β̃_t there. The best variance (Bao et al. 2022) does not pay it."
)
_SIGMA = (
    "The article says that the reverse Σ is usually the identity. Ho et al. use σ_t² I with σ_t² = β_t or β̃_t, which are "
    "of the order of 1e-4 to 1e-2. The table says what Σ = I would cost: bits/dim of the diffusion terms, t ≥ 2, for "
    "the same denoiser."
)

_GOALS = {"full sum": 500, "uniform t": 500, "importance-sampled t": 2.5}


def section(records: Sequence[Record]) -> Section | None:
    """What was found about the bound; None where neither record is there."""
    bound = _latest(records, "bound")
    estimators = _latest_estimators(records)
    if bound is None and not estimators:
        return None
    blocks: list[Block] = []
    headlines: list[str] = []
    data: dict[str, Any] = {}
    wrong = any(violations(record) for record in (bound, *estimators) if record is not None)
    if bound is not None:
        blocks += _bound_blocks(bound.results)
        headlines += _bound_headlines(bound.results)
        data["bound"] = bound.results
    if estimators:
        blocks += _estimator_blocks(estimators)
        of = {_data_set(record): None for record in estimators}
        headlines += [
            _estimator_headline([r for r in estimators if _data_set(r) == name]) for name in of
        ]
        data["estimator"] = [{"protocol": e.protocol, **e.results} for e in estimators]
    shown = [record for record in (bound, *estimators) if record is not None]
    older = [r for r in records if r.kind in ("bound", "estimator") and r not in shown]
    return Section(
        "The bound",
        blocks,
        data=data,
        headlines=headlines,
        failed=wrong,
        left_out=[(record.name, "followed by a later record of the same") for record in older],
    )


def _latest(records: Sequence[Record], kind: str) -> Record | None:
    found = [record for record in records if record.kind == kind]
    return max(found, key=lambda record: (record.created, record.name), default=None)


def _latest_estimators(records: Sequence[Record]) -> list[Record]:
    """The latest of each network, set of images and budget, in this order."""
    found = sorted(
        (r for r in records if r.kind == "estimator"),
        key=lambda record: (record.created, record.name),
    )
    latest = {_subject_and_budget(record): record for record in found}
    return [latest[key] for key in sorted(latest)]


def _bound_blocks(results: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [
        Paragraph(_INTRODUCTION),
        _laws(results),
        Figure(
            "bound-gap",
            lambda canvas: _draw_gaps(canvas, results),
            "Gap between expected bound and entropy over T, 64-dimensional Gaussian field. "
            "Dashed: γ/2. " + _last_gaps(results["gaps"]),
            size=(7.0, 3.6),
        ),
        Paragraph(_EULER),
        Figure(
            "bound-interior",
            lambda canvas: _draw_interiors(canvas, results["interiors"]),
            "The bound for three schedules with the same ends (log-SNR 14 to −14) and unlike interiors: the difference "
            "vanishes with T, as the continuous-time limit demands.",
            size=(7.0, 3.0),
        ),
        Figure(
            "bound-pointwise",
            lambda canvas: _draw_pointwise(canvas, results["pointwise"]),
            "For each x₀ by itself: the bound minus −ln of the density that the reverse chain itself has there, least, median and "
            "largest of 200 draws of the field. It is the chain's loss of information, never negative; linear schedule.",
            size=(7.0, 3.0),
        ),
        Figure(
            "bound-i-mmse",
            lambda canvas: _draw_i_mmse(canvas, results["i_mmse"]),
            "I-MMSE: half the area under each curve is how far the entropy lies below that of N(0, I), per dimension. The denoising "
            "error over the SNR is all that there is to know about a likelihood.",
            size=(7.0, 3.0),
        ),
        Paragraph(_SIGMA),
        _price_table(results["prices"], "Exact denoiser of the 64-dimensional field"),
    ]
    if results.get("model"):
        model = results["model"]
        caption = f"Trained model, errors measured on {model['images']} held-out images"
        blocks.append(_price_table(model["rows"], caption))
    return blocks


def _laws(results: Mapping[str, Any]) -> Table:
    """The identities with what was found and what must be."""
    least = min(row["gap"] for row in results["gaps"])
    rows: list[list[str | Cell]] = [
        ["expected bound ≥ entropy", f"least gap {least:.2g} nats/dim", _tone(least > -1e-10)],
        [
            "N(0, I) with σ_t² = β_t: equal at every T",
            f"largest difference {results['unit_beta_largest_difference']:.2g} nats",
            _tone(results["unit_beta_largest_difference"] < 1e-10),
        ],
        [
            "for each x₀: bound ≥ −ln of the model's own density",
            f"least slack {results['pointwise_least_slack']:.2g} nats",
            _tone(results["pointwise_least_slack"] > -1e-10),
        ],
    ]
    for row in results["i_mmse"]:
        miss = abs(row["by_integral"] - row["exact"])
        text = f"{row['by_integral']:.8f} against {row['exact']:.8f} nats"
        rows.append([f"I-MMSE integral = entropy ({row['data']})", text, _tone(miss < 1e-6)])
    grid = results.get("grid")
    if grid:
        text = (
            f"{len(grid['cells'])} cells, largest |z| {grid['largest']:.2f}, "
            f"Kolmogorov–Smirnov p = {grid['ks_p_value']:.2f}"
        )
        good = grid["largest"] < 4 and grid["ks_p_value"] > 0.01
        rows.append(["Monte Carlo of `elbo` = closed form", text, _tone(good)])
    return Table(("identity", "found", ""), rows, "What must hold, and what was found.")


def _tone(holds: bool) -> Cell:
    return Cell("holds", "good") if holds else Cell("violated", "bad")


def _last_gaps(rows: Rows) -> str:
    """The gaps at the largest T, in words."""
    top = max(row["T"] for row in rows if row["data"] == "field")
    parts = [
        f"{row['schedule']} {row['gap']:.3f}"
        for row in rows
        if (row["data"], row["T"], row["variance"]) == ("field", top, "posterior")
    ]
    return f"At T = {top} with β̃_t: {', '.join(parts)} nats/dim."


def _draw_gaps(canvas: "Canvas", results: Mapping[str, Any]) -> None:
    left, right = canvas.subplots(1, 2, sharey=True)
    for axes, variance, title in (
        (left, "posterior", "posterior variance β̃_t"),
        (right, "optimal", "best isotropic variance"),
    ):
        for color, family in zip(PALETTE, _FAMILIES, strict=False):
            points = [
                (row["T"], row["gap"])
                for row in results["gaps"]
                if (row["data"], row["schedule"], row["variance"]) == ("field", family, variance)
            ]
            axes.plot(
                *zip(*points, strict=True), marker="o", markersize=3, color=color, label=family
            )
        axes.axhline(results["euler_half"], linestyle="--", linewidth=1, color=PALETTE[6])
        axes.set(xscale="log", yscale="log", xlabel="T", title=title)
    left.set_ylabel("nats per dimension")
    right.legend()


def _draw_interiors(canvas: "Canvas", rows: Rows) -> None:
    axes = canvas.subplots()
    axes.plot([r["T"] for r in rows], [r["spread"] for r in rows], marker="o", color=PALETTE[0])
    axes.set(xscale="log", yscale="log", xlabel="T", ylabel="largest difference, nats/dim")


def _draw_pointwise(canvas: "Canvas", rows: Rows) -> None:
    axes = canvas.subplots()
    for color, variance, label in zip(PALETTE, ("posterior", "beta"), ("β̃_t", "β_t"), strict=False):
        chosen = [r for r in rows if (r["schedule"], r["variance"]) == ("linear", variance)]
        steps = [r["T"] for r in chosen]
        axes.plot(steps, [r["median"] for r in chosen], marker="o", color=color, label=label)
        low, high = ([r[end] for r in chosen] for end in ("least", "largest"))
        axes.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="T", ylabel="slack, nats")
    axes.legend(title="variance")


def _draw_i_mmse(canvas: "Canvas", rows: Rows) -> None:
    axes = canvas.subplots()
    for color, row in zip(PALETTE, rows, strict=False):
        axes.plot(row["log_snr"], row["integrand"], color=color, label=row["data"])
    axes.set(xlabel="ln SNR", ylabel="SNR·[1/(1+SNR) − mmse/D]", xlim=(-14, 14))
    axes.legend()


def _price_table(rows: Rows, caption: str) -> Table:
    header = ("T", *_PRICES.values())
    body = [[str(row["T"]), *(f"{row[key]:.4g}" for key in _PRICES)] for row in rows]
    return Table(header, body, f"{caption}: diffusion terms in bits/dim for each reverse variance.")


def _bound_headlines(results: Mapping[str, Any]) -> list[str]:
    rows = results["model"]["rows"] if results.get("model") else results["prices"]
    row = max(rows, key=lambda r: r["T"])
    whose = "of the trained model" if results.get("model") else "of an exact denoiser"
    return [
        f"The reverse Σ is not the identity: at T = {row['T']} Σ = I would cost {row['identity']:.0f} bits/dim in the bound "
        f"{whose}, against {row['beta']:.2f} with β_t I and {row['posterior']:.2f} with β̃_t I; "
        f"the best isotropic variance has {row['isotropic']:.2f}, the best diagonal one {row['diagonal']:.2f}."
    ]


def _subject_and_budget(record: Record) -> tuple[str, str, int, int]:
    protocol = record.protocol
    subject, images, evaluations = (protocol[k] for k in ("subject", "images", "evaluations"))
    return _data_set(record), subject, images, evaluations


def _data_set(record: Record) -> str:
    """Its name; records of version 0.1 do not say it, and are of digits."""
    return str(record.data["name"]) if record.data else "digits"


def _estimator_blocks(records: Sequence[Record]) -> list[Block]:
    """A row for each subject and budget, and the errors of the last."""
    last = records[-1]
    return [
        Paragraph(
            f"**Bits/dim on a budget.** `estimate_elbo` with {last.protocol['evaluations']} network evaluations on "
            f"{last.protocol['images']} images of {_data_set(last)} (T = {last.protocol['T']}) has a root mean squared error of "
            f"{last.results['rmse']:.4f} bits/dim around the reference {last.results['reference']:.4f} ± "
            f"{last.results['reference_stderr']:.4f}, which took {last.results['reference_evaluations']} evaluations."
        ),
        Table(
            ("model", "images", "evaluations", "covered", *_GOALS),
            [_estimator_row(record) for record in records],
            "Evaluations that other ways need for an equal error, as multiples of `estimate_elbo`'s (goals: "
            f"{', '.join(f'{way} {goal:g} ×' for way, goal in _GOALS.items())}); brackets are 95 % intervals, parentheses "
            "evaluations an image. Covered: the share of 95 % intervals that hold the reference (goal 92–98 %), of "
            f"{_repetitions(records)}. Protocol of the last row: {last.protocol['bound']}.",
        ),
        coverage_figure(records),
        Figure(
            "estimator-errors",
            lambda canvas: _draw_errors(canvas, last),
            f"Errors of repeated estimates, each with {last.protocol['evaluations']} evaluations; the full sum affords only a "
            "few images.",
            size=(7.0, 3.0),
        ),
        Note(
            "The other ways are simulated from the pool of evaluated terms behind the reference; importance sampling is "
            "given its exact second moments, and no warm-up is counted. The factor against the full sum is larger where the "
            "images differ more, for the full sum visits few of them."
        ),
    ]


def _estimator_row(record: Record) -> list[str | Cell]:
    protocol, coverage = record.protocol, record.results["coverage"]
    good = 0.92 <= coverage["estimate"] <= 0.98
    row: list[str | Cell] = [
        f"{protocol['subject']}, T = {protocol['T']}",
        f"{protocol['images']} {_data_set(record)}",
        f"{protocol['evaluations']} ({protocol['evaluations'] / protocol['images']:.3g})",
        Cell(
            f"{100 * coverage['estimate']:.1f} % [{100 * coverage['low']:.1f}, {100 * coverage['high']:.1f}]",
            "good" if good else "bad",
        ),
    ]
    for way, goal in _GOALS.items():
        ratio = record.results["evaluation_ratios"][way]
        reached = ratio["low"] is not None and ratio["low"] >= goal
        row.append(Cell(_times(ratio), "good" if reached else "warn"))
    return row


def _times(ratio: Mapping[str, Any]) -> str:
    if ratio["low"] is None:
        return f"{_three(ratio['estimate'])} × ({ratio['method']})"
    return f"{_three(ratio['estimate'])} × [{_three(ratio['low'])}, {_three(ratio['high'])}]"


def _three(value: float) -> str:
    """Three digits, or all of a whole number that has more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _draw_errors(canvas: "Canvas", record: Record) -> None:
    axes = canvas.subplots()
    names = [*record.results["evaluation_ratios"], "estimate_elbo"]
    values = [[abs(v) for v in record.samples[name]["values"]] for name in names]
    axes.boxplot(values, orientation="horizontal", whis=(5, 95), showfliers=False)
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set(xscale="log", xlabel="absolute error, bits/dim (box: quartiles, whiskers: 5 and 95 %)")


def _estimator_headline(records: Sequence[Record]) -> str:
    """One record with its intervals; of several the range, and the interval of the least."""
    covered = [100 * float(record.results["coverage"]["estimate"]) for record in records]
    ways = {
        way: sorted(
            (record.results["evaluation_ratios"][way] for record in records),
            key=lambda ratio: float(ratio["estimate"]),
        )
        for way in _GOALS
    }
    said = {
        way: _times(ratios[0])
        + (f" to {_three(ratios[-1]['estimate'])} ×" if len(ratios) > 1 else "")
        for way, ratios in ways.items()
    }
    shares = [record.protocol["evaluations"] / record.protocol["images"] for record in records]
    return (
        f"Bits/dim of {_data_set(records[0])} on a budget of {_range(shares, '.3g')} evaluations an image: `estimate_elbo` needs {said['full sum']} fewer "
        f"network evaluations than the full sum, {said['uniform t']} fewer than uniform t and {said['importance-sampled t']} "
        f"fewer than importance-sampled t; its 95 % interval covered {_range(covered, '.1f')} % of {_repetitions(records)} "
        "repetitions."
    )


def _repetitions(records: Sequence[Record]) -> str:
    return _range([int(record.results["coverage"]["n"]) for record in records], "d")


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
