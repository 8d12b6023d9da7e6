r"""How a claim is settled, from the studies' records and nothing else.

**Cells.** y of every seed (`bench.record.claim`, eq. 1) gives an interval and a two-sided p-value by Student's t over seeds.

**A difference** with cells j = 1 … m is one statement with one p-value,

    all ȳ_j > 0:      p = max p_j              (every cell has to be beyond noise: intersection–union)               (1)
    some ȳ_j ≤ 0:     p = min(1, m · min p_j over those cells)                                                        (2)

and *holds* or *fails* where p, adjusted by Holm for all differences of one report, is at most 0.05. Where there is no effect, (1) and (2) are each at
most α/2 likely to be at most α, so together α.

**An equality** with margin δ is not a test of "no effect": it *holds* only where the 90 % interval of every cell lies inside ±δ (two one-sided tests at
5 %), *fails* where the interval of some cell at 1 − 0.05/m lies outside ±δ, and is *within noise* else, which settles nothing.

**Power.** With n seeds and a paired standard deviation s, a test at level α finds a true mean μ with the probability that a noncentral t with
n − 1 degrees of freedom and noncentrality √n μ/s leaves ±t_{1−α/2} (`power`). It is stated before anything is run, at Holm's first step α = 0.05/m.

**An exact claim** compares two values of a closed form, taken at the largest T of the newest `bound` record, so it needs neither seeds nor a p-value.

A run that diverged has no value: its seed is left out, and the reason names the arm, the seed and the step. Fewer than three seeds settle nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.record.claim import Cell, Claim, Term, bound_of
from bench.record.claims import CLAIMS
from bench.record.record import Record
from bench.record.statistics import Interval, holm, mean_interval, mean_test
from bench.record.study import Measure, Results, completed, measure, merged, value_of

LEVEL = 0.05
_LEAST_SEEDS = 3
_DEPARTURE = Measure(
    "departure", "departure from the law", "of the price at rank 0", "difference", "truth"
)


@dataclass(frozen=True)
class Found:
    """A cell with its values.

    Attributes:
        cell: which.
        values: y by seed.
        ratio: whether y is a logarithm of a ratio.
        unit: of y, "×" for ratios.
        lost: why seeds are missing, "" where none is.
        predicted: y by the closed form; None where the record holds no prediction of it.
    """

    cell: Cell
    values: tuple[float, ...]
    ratio: bool
    unit: str
    lost: str = ""
    predicted: float | None = None

    @property
    def interval(self) -> Interval:
        """Student's, 95 %."""
        return mean_interval(self.values)

    @property
    def enough(self) -> bool:
        """Whether there are seeds enough to settle anything."""
        return len(self.values) >= _LEAST_SEEDS

    def shown(self, value: float | None) -> float | None:
        """A value of y as a reader sees it: ratios as ratios."""
        if value is None:
            return None
        return math.exp(min(value, 700.0)) if self.ratio else value


def claims_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Every claim as a row of report.json, settled as far as the records go; [] where there is no study that claims need."""
    return settled(records) if by_name(records) else []


def settled(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Every claim as a row of report.json, settled as far as the records go.

    Args:
        records: any; the newest study of a name counts, shards are put together.
    """
    studies, exact = by_name(records), _exact_rows(records)
    rows = settle(CLAIMS.values(), {row.id: cells_of(row, studies) for row in CLAIMS.values()})
    return [exact.get(row["id"], row) for row in rows]


def _exact_rows(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Exact claims by id, as rows of report.json; {} where no record prices the reverse variances."""
    bounds = sorted((r for r in records if r.kind == "bound"), key=lambda r: r.created)
    priced = [r for r in bounds if r.results.get("prices")]
    if not priced:
        return {}
    prices = max(priced[-1].results["prices"], key=lambda row: row["T"])
    return {row.id: _exact(row, prices) for row in CLAIMS.values() if row.kind == "exact"}


def _exact(row: Claim, prices: Mapping[str, float]) -> dict[str, Any]:
    claimed, other = row.prices
    extra = prices[claimed] - prices[other]
    return {
        **_start(row),
        "predicted": None,
        "measured": extra,
        "low": extra,
        "high": extra,
        "unit": "bits/dim",
        "seeds": 0,
        "verdict": "holds" if extra <= 0 else "fails",
        "reason": f"closed form at T = {prices['T']}, without seeds",
    }


def _start(row: Claim) -> dict[str, Any]:
    return {"id": row.id, "source": row.source, "says": row.says}


def by_name(records: Sequence[Record]) -> dict[str, Results]:
    """Results of the newest study of each name."""
    known = [r for r in merged(records) if r.kind == "study" and r.protocol.get("study")]
    return {r.protocol["study"]: r.results for r in sorted(known, key=lambda r: r.created)}


def cells_of(row: Claim, studies: Mapping[str, Results]) -> list[Found] | None:
    """The cells of a claim with their values; None where a study or an arm was not run."""
    if not all(_run(cell, studies) for cell in row.cells) or not row.cells:
        return None
    return [_found(cell, studies[cell.study]) for cell in row.cells]


def _run(cell: Cell, studies: Mapping[str, Results]) -> bool:
    arms = {arm["name"] for arm in studies.get(cell.study, {}).get("arms", [])}
    return {term.arm for term in cell.terms} <= arms


def settle(
    rows: Iterable[Claim], found: Mapping[str, Sequence[Found] | None]
) -> list[dict[str, Any]]:
    """Every claim with its verdict.

    Args:
        rows: the claims; the differences among them that were measured are Holm's family.
        found: their cells.
    """
    listed = list(rows)
    family = [row for row in listed if row.kind == "difference" and _ready(found[row.id])]
    plain = [p_value(found[row.id] or ()) for row in family]
    adjusted = dict(zip([row.id for row in family], holm(plain), strict=True))
    raw = dict(zip([row.id for row in family], plain, strict=True))
    return [
        _row(row, found[row.id], raw.get(row.id), adjusted.get(row.id), len(family))
        for row in listed
    ]


def _ready(cells: Sequence[Found] | None) -> bool:
    return cells is not None and all(cell.enough for cell in cells)


def p_value(cells: Sequence[Found]) -> float:
    """Equations (1) and (2)."""
    tests = [(cell.interval.estimate, mean_test(cell.values)) for cell in cells]
    against = [p for estimate, p in tests if estimate <= 0]
    if against:
        return min(1.0, len(cells) * min(against))
    return max(p for _, p in tests)


def equality(cells: Sequence[Found], row: Claim) -> str:
    """`holds`, `fails` or `within noise` of a claim of equality."""
    inside = [_inside(cell, bound_of(row, ratio=cell.ratio)) for cell in cells]
    if all(inside):
        return "holds"
    level = 1 - LEVEL / len(cells)
    outside = any(_outside(cell, bound_of(row, ratio=cell.ratio), level) for cell in cells)
    return "fails" if outside else "within noise"


def _inside(cell: Found, margin: float) -> bool:
    interval = mean_interval(cell.values, level=1 - 2 * LEVEL)
    assert interval.low is not None  # enough seeds
    assert interval.high is not None
    return -margin < interval.low and interval.high < margin


def _outside(cell: Found, margin: float, level: float) -> bool:
    interval = mean_interval(cell.values, level=level)
    assert interval.low is not None  # enough seeds
    assert interval.high is not None
    return interval.low > margin or interval.high < -margin


def _row(
    row: Claim,
    cells: Sequence[Found] | None,
    plain: float | None,
    adjusted: float | None,
    family: int,
) -> dict[str, Any]:
    start = _start(row)
    nothing = dict.fromkeys(("measured", "low", "high", "unit"))
    if cells is None:
        verdict, reason = _not_measured(row)
        return {
            **start,
            "predicted": row.predicted or None,
            **nothing,
            "seeds": 0,
            "verdict": verdict,
            "reason": reason,
        }
    if not _ready(cells):
        missing = "; ".join(dict.fromkeys(cell.lost for cell in cells if cell.lost))
        return {
            **start,
            "predicted": row.predicted or None,
            **nothing,
            "seeds": min(len(cell.values) for cell in cells),
            "verdict": "too few seeds",
            "reason": missing or f"fewer than {_LEAST_SEEDS}",
        }
    if row.kind == "equality":
        verdict = equality(cells, row)
        how = f"margin {'×' if cells[0].ratio else '±'}{row.margin:g}"
    else:
        assert plain is not None  # a difference that is ready is in the family
        assert adjusted is not None
        verdict = _direction(cells) if adjusted <= LEVEL else "within noise"
        how = f"p = {plain:.2g}, {adjusted:.2g} adjusted for {family}"
    shown = _deciding(cells, row)
    interval = shown.interval
    return {
        **start,
        "predicted": _predicted(row, shown),
        "measured": shown.shown(interval.estimate),
        "low": shown.shown(interval.low),
        "high": shown.shown(interval.high),
        "unit": shown.unit,
        "seeds": min(len(cell.values) for cell in cells),
        "verdict": verdict,
        "reason": "; ".join([how, *_about_cells(cells, shown, row, verdict)]),
    }


def _not_measured(row: Claim) -> tuple[str, str]:
    if row.needs:
        return f"not measured (needs {row.needs})", row.command
    return "not measured (no record)", f"ddpm-bench run --claims {row.id}"


def _direction(cells: Sequence[Found]) -> str:
    return "holds" if all(cell.interval.estimate > 0 for cell in cells) else "fails"


def _deciding(cells: Sequence[Found], row: Claim) -> Found:
    """The cell on which the verdict hangs: the least effect of a difference, the largest departure of an equality."""
    if row.kind == "equality":
        return max(cells, key=lambda cell: abs(cell.interval.estimate))
    return min(cells, key=lambda cell: cell.interval.estimate)


def _predicted(row: Claim, cell: Found) -> Any:
    return cell.shown(cell.predicted) if cell.predicted is not None else row.predicted or None


def _about_cells(cells: Sequence[Found], shown: Found, row: Claim, verdict: str) -> Iterable[str]:
    if len(cells) > 1:
        yield f"{len(cells)} contrasts; shown is the {_SHOWN[row.kind]}, {shown.cell.label}"
    if len(cells) > 1 and verdict != "holds":
        against = [_text(cell) for cell in cells if _disagrees(cell, row)]
        yield f"against it: {', '.join(against)}" if against else "none of them alone is against it"
    lost = dict.fromkeys(cell.lost for cell in cells if cell.lost)
    yield from lost


_SHOWN = {"difference": "least favourable", "equality": "largest departure"}


def _disagrees(cell: Found, row: Claim) -> bool:
    if row.kind == "equality":
        return _outside(cell, bound_of(row, ratio=cell.ratio), 1 - LEVEL)
    return cell.interval.estimate <= 0


def _text(cell: Found) -> str:
    value = cell.shown(cell.interval.estimate)
    return f"{cell.cell.label} {'×' if cell.ratio else ''}{value:.3g}"


def _found(cell: Cell, results: Results) -> Found:
    entries = {term.measure: _measure(term.measure) for term in cell.terms}
    ratio = all(entry.compared == "ratio" for entry in entries.values())
    per_term = [_by_seed(results, term, cell.level, ratio) for term in cell.terms]
    seeds = sorted(set.intersection(*(set(values) for values, _ in per_term)))
    unit = "×" if ratio else next(iter(entries.values())).unit
    return Found(
        cell,
        tuple(math.fsum(values[seed] for values, _ in per_term) for seed in seeds),
        ratio,
        unit,
        "; ".join(dict.fromkeys(lost for _, lost in per_term if lost)),
        _by_closed_form(results, cell, ratio),
    )


def _measure(key: str) -> Measure:
    return _DEPARTURE if key == _DEPARTURE.key else measure(key)


def _by_seed(
    results: Results, term: Term, level: int | None, ratio: bool
) -> tuple[dict[int, float], str]:
    entry, transform = _measure(term.measure), _transform(ratio)
    values, lost = {}, []
    for run in completed(results, term.arm):
        value = (
            _departure(results, run, level)
            if entry is _DEPARTURE
            else value_of(results, run, entry)
        )
        if value is None or (ratio and value <= 0):
            lost.append(f"{term.arm}, seed {run['seed']}: {run.get('reason') or 'no value'}")
        else:
            values[int(run["seed"])] = term.factor * transform(value)
    return values, "; ".join(lost)


def _transform(ratio: bool) -> Callable[[float], float]:
    return math.log if ratio else float


def _departure(results: Results, run: Mapping[str, Any], level: int | None) -> float | None:
    """(measured − predicted excess)/(price at rank 0) at one level of noise."""
    law = results["predictions"].get(run["arm"])
    if run.get("final") is None or law is None or level is None:
        return None
    measured = run["final"]["excess_by_bin"][level]
    return float((measured - law["excess_by_bin"][level]) / law["rank_0_by_bin"][level])


def _by_closed_form(results: Results, cell: Cell, ratio: bool) -> float | None:
    """Eq. (1) of `bench.record.claim` with predicted values; None where the closed form has no price, or none for this measure."""
    laws = results.get("predictions", {})
    values = [laws.get(term.arm, {}).get(term.measure) for term in cell.terms]
    if not ratio or any(value is None or value <= 1e-9 for value in values):
        return None
    return math.fsum(
        term.factor * math.log(value) for term, value in zip(cell.terms, values, strict=True)
    )
