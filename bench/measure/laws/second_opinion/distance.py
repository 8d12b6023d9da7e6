r"""The Fréchet distance at a witness, 50 digits: tr (A^½BA^½)^½ by two symmetric eigenvalue problems, where the laws need no root at all."""

from typing import Any

from mpmath import mp

from bench.measure.laws.second_opinion.algebra import Number, Witness
from bench.measure.laws.second_opinion.process import Found

_BY = "‖μ1−μ2‖² + tr A + tr B − 2 Σ√λ, λ the eigenvalues of A^½BA^½"


def frechet_of_moments(witness: Witness) -> Found:
    """d² of two Gaussians."""
    names = ("mean1", "covariance1", "mean2", "covariance2")
    moments = [mp.matrix(witness["arguments"][name]) for name in names]
    return _distance(*moments), _BY


def frechet_of_features(witness: Witness) -> Found:
    """d² of two sets, covariances over n − 1."""
    moments: list[Any] = []
    for name in ("first", "second"):
        moments += _moments(mp.matrix(witness["arguments"][name]))
    return _distance(*moments), _BY


def _moments(features: Any) -> tuple[Any, Any]:
    n = features.rows
    mean = features.T * mp.ones(n, 1) / n
    centred = features - mp.ones(n, 1) * mean.T
    return mean, centred.T * centred / (n - 1)


def _distance(mean1: Any, covariance1: Any, mean2: Any, covariance2: Any) -> Number:
    size = covariance1.rows
    values, vectors = mp.eigsy(covariance1)
    root = vectors * mp.diag([mp.sqrt(max(v, 0)) for v in values]) * vectors.T
    inner = root * covariance2 * root
    cross = mp.eigsy((inner + inner.T) / 2, eigvals_only=True)
    shift = mean1 - mean2
    traces = sum(covariance1[k, k] + covariance2[k, k] for k in range(size))
    squared = (shift.T * shift)[0] + traces
    return squared - 2 * sum(mp.sqrt(max(value, 0)) for value in cross)
