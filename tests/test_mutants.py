"""Every seeded defect is rejected by each law that names its cause; the implementation it sits on passes them all."""

import pytest

from bench.measure.laws.ours import BenchReference
from ddpm_ref.conformance.judge import judge
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.mutants import MUTANTS, Mutant

pytestmark = pytest.mark.any_torch

CASES = [
    pytest.param(mutant, cause, id=f"{mutant.name}: {cause}")
    for mutant in MUTANTS.values()
    for cause in mutant.causes
]


@pytest.mark.parametrize(("mutant", "cause"), CASES)
def test_is_rejected_for_its_cause(mutant: Mutant, cause: str) -> None:
    implementation, law = mutant.build(BenchReference), LAWS[cause]
    outcomes = [judge(law, implementation, dtype, stop_early=True) for dtype in law.tolerances]
    assert any(outcome.status == "fail" for outcome in outcomes)  # an exception rejects nothing


def test_there_are_enough_and_every_law_has_teeth() -> None:
    assert len(MUTANTS) >= 60
    assert {cause for mutant in MUTANTS.values() for cause in mutant.causes} == set(LAWS)


def test_every_mutant_overrides_one_function() -> None:
    for mutant in MUTANTS.values():
        chain = [kind for kind in mutant.kind.__mro__ if kind.__module__ == mutant.kind.__module__]
        public = {
            name
            for kind in chain
            for name, value in vars(kind).items()
            if callable(value) and not name.startswith("_")
        }
        helpers = {"wrong", "combined", "changed", "moved", "heard"}
        assert len(public - helpers) == 1, mutant.name


def test_unrelated_laws_still_hold() -> None:
    """A defect in one function leaves the laws of another alone: causes are causes, not collateral."""
    mutant = MUTANTS["kl-reversed"].build(BenchReference)
    for id in ("I1-marginal", "I3-target", "I8-value", "I22-ema"):
        law = LAWS[id]
        assert not any(judge(law, mutant, dtype).failed for dtype in law.tolerances)
