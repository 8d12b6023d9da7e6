"""All laws on one implementation, and what kind of failure each failure is.

The rule of classification, in this order:

1. **adapter**: what only the adapter can be the reason of: a signature, the type of a result, `settings`.
2. **convention**: the law fails on the plain reading, and holds in the same dtype on a reading that the adapter declares for this law, or fails there
   by rounding alone.
3. **precision**: the error is what rounding at the declared `table_dtype` explains (`judge`), or the law holds in a higher dtype, or fails there for
   this reason; **severe** where no correct digit is left.
4. **bug**: it fails otherwise; then below that dtype too. An exception, a wrong shape or a NaN in the highest dtype is one.

Where chance, discretization or a count separates right from wrong, nothing is a matter of precision. A dtype that is right in float64 and too wide
or too narrow below is one.
"""

import math
import unittest
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from ddpm_ref.conformance.guarded import asked_in
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.judge import ADAPTER, DTYPE_NAMES, Outcome, judge
from ddpm_ref.conformance.lawbook import LAWS, Law
from ddpm_ref.conformance.limit import PASSING, LimitReachedError, within
from ddpm_ref.conformance.witness import described
from ddpm_ref.validation import unknown_name


def examine(
    law: Law, implementation: Implementation, *, limit: float | None = None, thorough: bool = False
) -> tuple[Outcome, ...]:
    """One law at every dtype that it speaks about and the implementation accepts, failures classified.

    Args:
        law: the law.
        implementation: the adapter.
        limit: seconds for all of it, after which the dtype that was being asked is an `error` and the others are left out (`limit.within`).
        thorough: also ask what the usual profile samples from.
    """
    accepted = [dtype for dtype in law.tolerances if dtype in implementation.dtypes]
    dtypes = accepted or list(law.tolerances)[:1]  # asked in a dtype that it takes: `judge`
    outcomes: list[Outcome] = []
    try:
        with within(limit):
            for dtype in dtypes:
                outcomes.append(_judged(law, implementation, dtype, outcomes, thorough))
    except LimitReachedError as reached:
        if len(outcomes) < len(dtypes):
            outcomes.append(_unanswered(law, implementation, dtypes[len(outcomes)], reached))
    return tuple(outcomes)


def _judged(
    law: Law,
    implementation: Implementation,
    dtype: torch.dtype,
    before: Sequence[Outcome],
    thorough: bool,
) -> Outcome:
    outcome = judge(law, implementation, dtype, thorough=thorough)
    if not outcome.failed or outcome.classification == ADAPTER:
        return outcome
    above = [o.classification for o in before if o.status != "not-offered"]
    return classify(law, implementation, dtype, outcome, above=above, thorough=thorough)


def _unanswered(
    law: Law, implementation: Implementation, dtype: torch.dtype, reached: LimitReachedError
) -> Outcome:
    """No answer is none that is right: a bug."""
    asked = asked_in(implementation, dtype)
    return Outcome(
        law=law.id,
        implementation=implementation.name,
        dtype=DTYPE_NAMES[asked],
        status="error",
        error=math.inf,
        tolerance=law.tolerances[dtype],
        cases=0,
        message=str(reached),
        classification="bug",
        root=f"no answer in time at {reached.place}",
    )


def classify(
    law: Law,
    implementation: Implementation,
    dtype: torch.dtype,
    outcome: Outcome,
    *,
    above: Sequence[str | None] = (),
    thorough: bool = False,
) -> Outcome:
    """The rule of the module's docstring, for an outcome that failed; `above` are the classes in higher dtypes, None for a pass."""
    for convention in implementation.conventions:
        if not convention.covers(law.id):
            continue
        try:
            reading = convention.read(implementation)
        except PASSING:
            raise
        except BaseException as failure:  # theirs, like all that an adapter does
            said = f"{outcome.message}; reading {convention.name!r} raised {described(failure)}"
            return replace(outcome, message=said, classification=ADAPTER)
        read = judge(law, reading, dtype, thorough=thorough)
        if read.status == "pass" or read.classification == "precision":
            words = f"{convention.name}: {convention.statement} ({convention.source})"
            return replace(outcome, classification="convention", convention=words)
    if not above or "bug" in above or law.measures not in ("rounding", "form"):
        return outcome if "bug" not in above else replace(outcome, classification="bug")
    kind = "severe" if outcome.lost and law.measures == "rounding" else "precision"
    return replace(outcome, classification=kind)


def verify(
    implementation: Implementation,
    laws: Iterable[Law] | None = None,
    on_law: Callable[[Law], None] | None = None,
    *,
    thorough: bool = False,
    limit: float | None = None,
) -> tuple[Outcome, ...]:
    """Every law at every dtype; never raises on account of the implementation.

    Args:
        implementation: the adapter.
        laws: which laws; all of them by default.
        on_law: called before each law, for progress.
        thorough: also ask what the usual profile samples from: every shape, option, length and dtype with every other.
        limit: seconds for each law (`examine`).
    """
    outcomes: list[Outcome] = []
    for law in LAWS.values() if laws is None else laws:
        if on_law is not None:
            on_law(law)
        outcomes.extend(examine(law, implementation, limit=limit, thorough=thorough))
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
