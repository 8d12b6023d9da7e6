"""Means over a whole data set from a fixed budget, each with an honest standard error: the bound, a loss, the least loss."""

from ddpm_ref.estimator.estimate import ElboEstimate, estimate_elbo
from ddpm_ref.estimator.loss import LossEstimate, validation_loss
from ddpm_ref.estimator.optimal import DenoiserError, optimal_loss

__all__ = [
    "DenoiserError",
    "ElboEstimate",
    "LossEstimate",
    "estimate_elbo",
    "optimal_loss",
    "validation_loss",
]
