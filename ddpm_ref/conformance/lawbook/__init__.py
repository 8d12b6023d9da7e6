"""The registry of laws: every row is run by the tests, by `ddpm-bench verify`, by the report, and by other projects."""

from ddpm_ref.conformance.lawbook import (
    bound,
    capacity,
    denoiser,
    density,
    expectation,
    frechet,
    hygiene,
    information,
    learned,
    manners,
    objective,
    parameterization,
    pointwise,
    process,
    quality,
    runs,
    sampling,
    schedule,
    training,
)
from ddpm_ref.conformance.lawbook.law import Case, Law

LAWS: dict[str, Law] = {
    law.id: law
    for topic in (
        schedule,
        process,
        learned,
        parameterization,
        objective,
        density,
        bound,
        pointwise,
        expectation,
        denoiser,
        capacity,
        information,
        sampling,
        training,
        runs,
        quality,
        frechet,
        hygiene,
        manners,
    )
    for law in topic.LAWS
}
"""All laws by id."""

__all__ = ["LAWS", "Case", "Law"]
