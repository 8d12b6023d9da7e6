"""All laws on one implementation, and what kind of failure each failure is.

The rule of classification, in this order:

1. **convention**: the law fails on the plain reading, and holds in the same dtype on a reading that the adapter declares for this law.
2. **precision**: the law holds in a higher dtype (or fails there for one of these two reasons) and fails only below; or it fails by no more than sixteen times what the right formulas
   err on tables that are kept in the declared `table_dtype` and formed plainly (1−ᾱ by subtraction).
3. **bug**: it fails in float64 otherwise, or in the highest dtype that the implementation accepts; then below it too.

An exception or a wrong shape is a bug unless a declared reading avoids it. Where chance or discretization separates right from wrong, nothing is
a matter of precision. What only the adapter can be the reason of (a signature, the type of a result, `settings`) is classified **adapter**.
"""

import math
import unittest
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.judge import ADAPTER, Outcome, described, judge
from ddpm_ref.conformance.lawbook import LAWS, Law
from ddpm_ref.conformance.reference import Reference, RoundedReference
from ddpm_ref.validation import unknown_name

_ROUNDING_FACTOR = 16.0


def examine(law: Law, implementation: Implementation) -> tuple[Outcome, ...]:
    """One law at every dtype that it speaks about and the implementation accepts, failures classified."""
    accepted = [dtype for dtype in law.tolerances if dtype in implementation.dtypes]
    dtypes = accepted or list(law.tolerances)[:1]  # asked in a dtype that it takes: `judge`
    outcomes: list[Outcome] = []
    for dtype in dtypes:
        outcome = judge(law, implementation, dtype)
        if outcome.failed and outcome.classification is None:
            above = [o.classification for o in outcomes if o.status != "not-offered"]
            outcome = classify(law, implementation, dtype, outcome, above=above)
        outcomes.append(outcome)
    return tuple(outcomes)


def classify(
    law: Law,
    implementation: Implementation,
    dtype: torch.dtype,
    outcome: Outcome,
    *,
    above: Sequence[str | None] = (),
) -> Outcome:
    """The rule of the module's docstring, for an outcome that failed; `above` are the classes in higher dtypes, None for a pass."""
    for convention in implementation.conventions:
        if not convention.covers(law.id):
            continue
        try:
            reading = convention.read(implementation)
        except (Exception, SystemExit) as failure:  # theirs, like all that an adapter does
            said = f"{outcome.message}; reading {convention.name!r} raised {described(failure)}"
            return replace(outcome, message=said, classification=ADAPTER)
        if judge(law, reading, dtype).status == "pass":
            words = f"{convention.name}: {convention.statement} ({convention.source})"
            return replace(outcome, classification="convention", convention=words)
    if law.measures != "rounding":
        return replace(outcome, classification="bug")
    if above:
        return replace(outcome, classification="bug" if "bug" in above else "precision")
    if not math.isfinite(outcome.error):
        return replace(outcome, classification="bug")
    rounding = _ROUNDING_FACTOR * _rounded_error(law.id, dtype, implementation.table_dtype)
    return replace(outcome, classification="precision" if outcome.error <= rounding else "bug")


@lru_cache(maxsize=256)
def _rounded_error(law: str, dtype: torch.dtype, table_dtype: torch.dtype) -> float:
    """How much the right formulas err under a law on tables of that dtype; 0 where that has no figure.

    Formulas that break the law on exact tables are not the right ones: somebody is changing `ddpm_ref`.
    """
    if judge(LAWS[law], Reference(), dtype).failed:
        return 0.0
    outcome = judge(LAWS[law], RoundedReference(table_dtype), dtype)
    return outcome.error if math.isfinite(outcome.error) else 0.0


def verify(
    implementation: Implementation,
    laws: Iterable[Law] | None = None,
    on_law: Callable[[Law], None] | None = None,
) -> tuple[Outcome, ...]:
    """Every law at every dtype; never raises on account of the implementation.

    Args:
        implementation: the adapter.
        laws: which laws; all of them by default.
        on_law: called before each law, for progress.
    """
    outcomes: list[Outcome] = []
    for law in LAWS.values() if laws is None else laws:
        if on_law is not None:
            on_law(law)
        outcomes.extend(examine(law, implementation))
    return tuple(outcomes)


@dataclass(frozen=True)
class LawTest:
    """A law as a test function of somebody's suite: raises AssertionError where it fails, skips where nothing is offered.

    Attributes:
        law: the law.
        allow: classifications that do not fail the test.
    """

    law: Law
    allow: tuple[str, ...] = ()

    @property
    def __name__(self) -> str:
        """The id, by which pytest names the parametrized case."""
        return self.law.id

    def __repr__(self) -> str:
        return f"<law {self.law.id}>"

    def __call__(self, implementation: Implementation) -> None:
        """Run the law.

        Raises:
            AssertionError: it fails; the message has statement, witness and snippet.
            unittest.SkipTest: the implementation offers nothing that the law speaks about (pytest shows it as skipped).
        """
        __tracebackhide__ = True  # pytest ends its traceback at the test
        outcomes = examine(self.law, implementation)
        failed = [o for o in outcomes if o.failed and o.classification not in self.allow]
        if failed:
            raise AssertionError("\n\n".join(explain(self.law, outcome) for outcome in failed))
        if all(outcome.status == "not-offered" for outcome in outcomes):
            raise unittest.SkipTest(f"{self.law.id}: {outcomes[0].message}")


def explain(law: Law, outcome: Outcome) -> str:
    """A failure in words: what should hold, what was found, how to see it."""
    kind = outcome.convention or outcome.classification or "unclassified"
    return (
        f"{law.id} {law.title} [{outcome.dtype}, {kind}]\n"
        f"  holds: {law.statement}\n"
        f"  found: {outcome.message}\n"
        f"  why:   {law.derivation} ({law.source})\n"
        f"{_indented(outcome.snippet)}"
    )


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())


def laws(*topics: str, allow: Sequence[str] = ()) -> tuple[LawTest, ...]:
    """The laws as test cases. Three lines put an implementation under all of them:

        @pytest.mark.parametrize("law", ddpm_ref.conformance.laws())
        def test_law(law):
            law(MyAdapter())

    Args:
        topics: ids (`I8-tails`) or invariants (`I8`) to restrict them to; none means all.
        allow: classifications that do not fail the test, such as `("convention", "precision")`.
    """
    known = {*LAWS, *(law.invariant for law in LAWS.values())}
    for topic in topics:
        if topic not in known:
            raise unknown_name("law", topic, known)
    return tuple(
        LawTest(law, tuple(allow))
        for law in LAWS.values()
        if not topics or law.id in topics or law.invariant in topics
    )


def law_test(id: str) -> LawTest:
    """One law by id, as a test case."""
    if id not in LAWS:
        raise unknown_name("law", id, LAWS)
    return LawTest(LAWS[id])
