"""The kinds of records, and for each the one verdict on it: what went wrong, in words.

Job, command and report ask `violations`; none of them judges by a rule of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.record.record import Record

Results = Mapping[str, Any]

ROUNDING = 1e-10
"""Nats by which an exact inequality may be missed in float64."""
GRID_LARGEST, GRID_LEAST_P = 4.0, 0.01
"""Of the Monte Carlo grid: the largest |z| of 144 cells (expected once in 100 grids), and the least p-value of all of them."""
COVERAGE = (0.92, 0.98)
"""Within which the coverage of a 95 % interval must lie, as far as the repetitions can tell."""
_FOUND = 0.95
"""Least share of random defects that the tests must find."""


def violations(record: Record) -> list[str]:
    """What went wrong in a record, most important first; empty where nothing did, or where nothing can.

    Raises:
        KeyError, TypeError: the results do not have the shape of their kind.
    """
    judge = JUDGES.get(record.kind)
    return [] if judge is None else list(judge(record.results))


def _verify(results: Results) -> Iterable[str]:
    failed = list(map(str, results["failed"]))
    if failed:
        yield f"{len(failed)} laws failed: {', '.join(failed)}"


def _suite(results: Results) -> Iterable[str]:
    return _failed_cases(results["not_measured"])


def _contest(results: Results) -> Iterable[str]:
    for case in results["contests"]:
        yield from _failed_cases(case["not_measured"])


def _failed_cases(missing: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Cases of ours that were wrong or broke; what is merely not possible here does not count."""
    for case in missing:
        if case.get("outcome") == "failed":
            yield f"{case.get('name', case.get('contender'))}: {case['reason']}"


def _visit(results: Results) -> Iterable[str]:
    if not results["bits_equal"]:
        yield "the CUDA kernel's bits differ from the definition"
    yield from _contest(results)


def _study(results: Results) -> Iterable[str]:
    for run in results["runs"]:
        if "failed" in run:
            yield f"{run['arm']}, seed {run['seed']}, broke: {run['failed']}"


def _bound(results: Results) -> Iterable[str]:
    exact = (
        ("the least gap to the entropy", min(float(row["gap"]) for row in results["gaps"])),
        ("the least slack at one point", float(results["pointwise_least_slack"])),
    )
    for what, value in exact:
        if value < -ROUNDING:
            yield f"{what} is {value:.3g} nats, below zero"
    difference = float(results["unit_beta_largest_difference"])
    if difference > ROUNDING:
        yield f"bound and entropy of N(0, I) with variance β differ by {difference:.3g} nats"
    grid = results["grid"]
    if grid is not None and float(grid["largest"]) >= GRID_LARGEST:
        yield f"the grid's largest |z| is {grid['largest']:.2f}, not below {GRID_LARGEST:g}"
    if grid is not None and float(grid["ks_p_value"]) <= GRID_LEAST_P:
        yield f"the grid's Kolmogorov-Smirnov p is {grid['ks_p_value']:.3g}, not above {GRID_LEAST_P:g}"


def _estimator(results: Results) -> Iterable[str]:
    covered = results["coverage"]
    if covered["high"] < COVERAGE[0] or covered["low"] > COVERAGE[1]:
        yield (
            f"the 95 % interval covers {covered['estimate']:.1%} [{covered['low']:.1%}, {covered['high']:.1%}], "
            f"outside {COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}"
        )


def _noise(results: Results) -> Iterable[str]:
    if not results["passed"]:
        yield "a test of the noise failed"


def _mutation(results: Results) -> Iterable[str]:
    missed = results["seeded"]["missed"]
    if missed:
        yield f"{len(missed)} seeded defects are missed by a law that names them"
    if results["killed"] < _FOUND * results["counted"]:
        share = results["killed"] / results["counted"]
        yield f"the tests find {share:.1%} of random defects, not {_FOUND:.0%}"


def _run(results: Results) -> Iterable[str]:
    for part in results["parts"]:
        if part["status"] != "done":
            yield f"{part['part']} {part['status']}: {part['reason']}"


JUDGES: Mapping[str, Callable[[Results], Iterable[str]]] = {
    "verify": _verify,
    "throughput": _suite,
    "throughput-contest": _contest,
    "training-contest": _contest,
    "gpu-visit": _visit,
    "study": _study,
    "bound": _bound,
    "estimator": _estimator,
    "noise": _noise,
    "mutation": _mutation,
    "run": _run,
}
"""Kind → its verdict. A kind that is not here can only be shown."""
