"""The bound of a whole data set from a fixed budget of network evaluations."""

from ddpm_ref.estimator.estimate import ElboEstimate, estimate_elbo

__all__ = ["ElboEstimate", "estimate_elbo"]
