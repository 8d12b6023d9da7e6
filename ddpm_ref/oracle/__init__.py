"""Exact models: data distributions whose best denoiser, density and bound are known, so that everything can be checked."""

from ddpm_ref.oracle.base import Oracle
from ddpm_ref.oracle.empirical import EmpiricalOracle
from ddpm_ref.oracle.gaussian import GaussianOracle
from ddpm_ref.oracle.mixture import MixtureOracle

__all__ = ["EmpiricalOracle", "GaussianOracle", "MixtureOracle", "Oracle"]
