"""The bound where the truth is known: gaps, limits, identities, and the price of each reverse variance.

Everything here is a closed form or a quadrature on data with a known density, except for the Monte Carlo grid, which holds
`elbo` against those closed forms, and the prices of a trained model, whose errors are measured.
"""

from bench.measure.bound.record import bound_record

__all__ = ["bound_record"]
