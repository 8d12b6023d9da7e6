"""The defects that people made: each must be rejected by every law that names its cause."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Seeded:
    """One seeded defect and what the laws said.

    Attributes:
        name: of the mutant.
        says: what is wrong with it.
        origin: where such a defect was seen; "" for one of our own.
        causes: the laws that must reject it.
        missed: those of them that did not.
    """

    name: str
    says: str
    origin: str
    causes: tuple[str, ...]
    missed: tuple[str, ...]


def run_seeded(on_mutant: Callable[[str], None]) -> list[Seeded]:
    """Every seeded defect under the laws of its causes."""
    from bench.measure.laws.ours import BenchReference
    from ddpm_ref.conformance.judge import judge
    from ddpm_ref.conformance.lawbook import LAWS
    from ddpm_ref.conformance.mutants import MUTANTS

    rows = []
    for name, mutant in MUTANTS.items():
        implementation = mutant.build(BenchReference)
        missed = [
            cause
            for cause in mutant.causes
            if not any(
                judge(LAWS[cause], implementation, dtype, stop_early=True).status == "fail"
                for dtype in LAWS[cause].tolerances
            )
        ]
        rows.append(Seeded(name, mutant.says, mutant.origin, mutant.causes, tuple(missed)))
        on_mutant(name)
    return rows
