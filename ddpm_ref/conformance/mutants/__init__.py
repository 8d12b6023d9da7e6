"""Seeded defects: each is rejected by a law that names its cause, which proves that the laws have teeth.

for mutant in MUTANTS.values():
    outcomes = examine(LAWS[mutant.causes[0]], mutant.build())
"""

from ddpm_ref.conformance.mutants import (  # noqa: F401 - importing a topic registers its mutants
    bounds,
    capacity,
    chains,
    densities,
    distances,
    expectations,
    hygiene,
    learned,
    manners,
    objectives,
    process,
    runs,
    schedules,
)
from ddpm_ref.conformance.mutants.mutant import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
