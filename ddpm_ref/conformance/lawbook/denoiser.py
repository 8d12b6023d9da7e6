"""Laws on exact denoisers: E[x_0 | x_t] for data whose distribution is known."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.density import log_density, spread_matrix
from ddpm_ref.conformance.lawbook.law import Case, Law, draw, settings_with_truth
from ddpm_ref.conformance.lawbook.truth import Truth

_SHAPES = ((1, 1), (2, 3), (5, 5))


def _steps(known: Truth, batch: int) -> Tensor:
    return torch.tensor(([known.T, 1, (known.T + 1) // 2] * batch)[:batch])


def _roots(known: Truth, t: Tensor) -> tuple[Tensor, Tensor]:
    return known.column(lambda r: r.a, t, 2), known.column(lambda r: r.rest, t, 2)


def _linear_estimate(
    mean: Tensor, covariance: Tensor, x_t: Tensor, a: Tensor, rest: Tensor
) -> Tensor:
    """m + aC(a²C + s²I)⁻¹(x_t − a m), row by row."""
    identity = torch.eye(len(mean), dtype=torch.float64)
    rows = []
    for x, root, noise in zip(x_t, a.flatten(), rest.flatten(), strict=True):
        inner = torch.linalg.solve(root**2 * covariance + noise * identity, x - root * mean)
        rows.append(mean + root * covariance @ inner)
    return torch.stack(rows)


def _gaussian(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        for batch, dims in _SHAPES:
            t = _steps(known, batch)
            mean, covariance, x_t = (
                draw((dims,), 9),
                spread_matrix(dims, 10),
                draw((batch, dims), 4),
            )
            expected = _linear_estimate(mean, covariance, x_t, *_roots(known, t))
            arguments = {"setting": setting, "mean": mean, "covariance": covariance}
            yield Case(
                "gaussian_denoise",
                {**arguments, "x_t": x_t, "t": t},
                expected,
                expected.abs().clamp(min=1.0),
            )


def _mixture(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        for batch, dims in _SHAPES:
            t, parts = _steps(known, batch), 3
            a, rest = _roots(known, t)
            weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
            means, x_t = 2 * draw((parts, dims), 11), draw((batch, dims), 4)
            covariances = torch.stack([spread_matrix(dims, 12 + k) for k in range(parts)])
            identity = torch.eye(dims, dtype=torch.float64)
            logs = torch.stack(
                [
                    torch.cat(
                        [
                            weights[k].log()
                            + log_density(
                                x_t[b : b + 1],
                                a[b, 0] * means[k],
                                a[b, 0] ** 2 * covariances[k] + rest[b, 0] * identity,
                            )
                            for b in range(batch)
                        ]
                    )
                    for k in range(parts)
                ]
            )
            share = torch.softmax(logs, 0)
            estimates = [
                _linear_estimate(means[k], covariances[k], x_t, a, rest) for k in range(parts)
            ]
            expected = sum(share[k, :, None] * estimates[k] for k in range(parts))
            assert isinstance(expected, Tensor)
            yield Case(
                "mixture_denoise",
                {
                    "setting": setting,
                    "weights": weights,
                    "means": means,
                    "covariances": covariances,
                    "x_t": x_t,
                    "t": t,
                },
                expected,
                expected.abs().clamp(min=1.0),
            )


def _finite_data(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        for batch, dims in _SHAPES:
            t, data = _steps(known, batch), draw((7, dims), 13)
            a, rest = _roots(known, t)
            x_t = a * data[:batch] + rest.sqrt() * draw((batch, dims), 2)
            distance = ((x_t[:, None] - a[:, :, None] * data) ** 2).sum(2)
            expected = torch.softmax(-distance / (2 * rest), 1) @ data
            yield Case(
                "empirical_denoise",
                {"setting": setting, "data": data, "x_t": x_t, "t": t},
                expected,
                expected.abs().clamp(min=1.0),
            )


_TOLERANCE = {torch.float64: 1e-9}
_REASON = "Relative to max(1, |value|); one linear solve with condition below 1e3/β_1, or a softmax of numbers up to 1e5."

LAWS = (
    Law(
        "I30-gaussian-denoiser",
        "exact denoiser, Gaussian",
        "E[x0 | x_t] = m + aC(a²C + s²I)⁻¹(x_t − a m).",
        "Conditional mean of jointly Gaussian (x0, x_t).",
        "Any textbook.",
        _TOLERANCE,
        _REASON,
        _gaussian,
    ),
    Law(
        "I30-mixture-denoiser",
        "exact denoiser, mixture",
        "E[x0 | x_t] = Σ_k P(k | x_t) E[x0 | x_t, k].",
        "Law of total expectation; P(k | x_t) by Bayes with N(a m_k, a²C_k + s²I).",
        "Any textbook.",
        _TOLERANCE,
        _REASON,
        _mixture,
    ),
    Law(
        "I30-empirical-denoiser",
        "exact denoiser, finite data",
        "E[x0 | x_t] = Σ_n softmax_n(−‖x_t − a x_n‖²/(2s²)) x_n.",
        "The mixture of points.",
        "Karras et al. 2022, appendix B.3.",
        _TOLERANCE,
        _REASON,
        _finite_data,
    ),
)
