"""Exact models: data distributions whose best denoiser, density and bound are known, so that everything can be checked."""

from ddpm_ref.oracle.base import Oracle
from ddpm_ref.oracle.embedded import EmbeddedOracle
from ddpm_ref.oracle.empirical import EmpiricalOracle
from ddpm_ref.oracle.gaussian import GaussianOracle
from ddpm_ref.oracle.mixture import MixtureOracle
from ddpm_ref.oracle.rank import best_skip, rank_limited_excess
from ddpm_ref.oracle.skip import crossover, output_skip, wiener_gain

__all__ = [
    "EmbeddedOracle",
    "EmpiricalOracle",
    "GaussianOracle",
    "MixtureOracle",
    "Oracle",
    "best_skip",
    "crossover",
    "output_skip",
    "rank_limited_excess",
    "wiener_gain",
]
