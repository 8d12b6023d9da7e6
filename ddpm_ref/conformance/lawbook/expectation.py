r"""Laws on the expected bound: data that are Gaussian make every expectation a finite sum.

On data with eigenvalues c and mean m the best model errs by c s²/(ᾱc + s²) per eigen-direction, which replaces the squared error E in
eq. (1) of `lawbook.bound`; the prior term takes ‖m‖² + Σ c for ‖x_0‖². So the expected bound is known, must not fall below the
entropy, and has limits as T → ∞ that depend on the schedule in known ways.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Bound, Implementation
from ddpm_ref.conformance.lawbook.bound import VARIANCES, decoder_term, prior_term, step_term
from ddpm_ref.conformance.lawbook.law import Case, Law, draw, settings_of, settings_with_truth
from ddpm_ref.conformance.lawbook.truth import MP, Number, Row, Truth
from ddpm_ref.conformance.setting import Setting


def _eigen(dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """A mean, a full covariance and its eigenvalues."""
    values = torch.tensor([0.04, 0.7, 3.1], dtype=torch.float64)[:dims]
    basis, _ = torch.linalg.qr(draw((dims, dims), 8))
    return draw((dims,), 9), basis @ torch.diag(values) @ basis.T, values


def expected_total(known: Truth, values: Tensor, mean: Tensor, variance: str) -> Number:
    """The closed form of the module's docstring, in nats."""
    spectrum = [MP.mpf(v) for v in values.tolist()]
    energy = sum(spectrum) + sum(MP.mpf(m) ** 2 for m in mean.tolist())

    def error(row: Row) -> Number:
        return sum(c * row.rest / (row.alpha_bar * c + row.rest) for c in spectrum)

    dims = len(spectrum)
    inner = sum(step_term(variance, row, dims, error(row)) for row in known.rows[2:])
    return (
        prior_term(known.rows[-1], dims, energy)
        + inner
        + decoder_term(known.rows[1], dims, error(known.rows[1]))
    )


def _gaussian_bound(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        for dims in (1, 3):
            mean, covariance, values = _eigen(dims)
            for variance in VARIANCES:
                exact = expected_total(known, values, mean, variance)
                expected = torch.tensor([float(exact)], dtype=torch.float64)
                yield Case(
                    "gaussian_bound",
                    {
                        "setting": setting,
                        "mean": mean,
                        "covariance": covariance,
                        "variance": variance,
                    },
                    expected,
                    expected.abs().clamp(min=1.0),
                    select=lambda bound: bound.total,
                    exact=lambda index, exact=exact: exact,  # type: ignore[misc]
                    label="gaussian_bound(…).total",
                )


def _entropy(spectrum: Tensor) -> float:
    return float(0.5 * (len(spectrum) * math.log(2 * math.pi * math.e) + spectrum.log().sum()))


def _excess(total: Bound, entropy: float) -> Tensor:
    assert total.total is not None
    return total.total.double() - entropy


def _above_entropy(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting in settings_of(implementation):
        for dims in (1, 3):
            mean, covariance, values = _eigen(dims)
            for variance in VARIANCES:

                def shortfall(
                    candidate: Implementation,
                    inputs: Any = (setting, mean, covariance, variance),
                    floor: float = _entropy(values),
                ) -> Tensor:
                    return _excess(candidate.gaussian_bound(*inputs), floor).clamp(max=0.0)

                yield Case(
                    "gaussian_bound",
                    {
                        "setting": setting,
                        "mean": mean,
                        "covariance": covariance,
                        "variance": variance,
                    },
                    torch.zeros(1, dtype=torch.float64),
                    run=shortfall,
                    label="expected bound below the entropy",
                )


def _tight(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting in settings_of(implementation):
        for dims in (1, 2):
            mean, covariance = torch.zeros(dims).double(), torch.eye(dims).double()
            expected = torch.tensor([_entropy(torch.ones(dims).double())], dtype=torch.float64)
            yield Case(
                "gaussian_bound",
                {"setting": setting, "mean": mean, "covariance": covariance, "variance": "beta"},
                expected,
                select=lambda bound: bound.total,
                label="gaussian_bound(N(0, I)).total",
            )


def _ramp(T: int, power: float) -> Setting:
    """λ from 6 to −6 in T steps; `power` bends the interior and leaves the ends."""
    points = [6.0 - 12.0 * (k / (T - 1)) ** power for k in range(T)]
    return Setting(f"log-SNR ramp, power {power:g}", T, log_snr=tuple(points))


def _rate(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    floor = _entropy(torch.ones(1).double())

    def ratio(candidate: Implementation) -> Tensor:
        mean, covariance = torch.zeros(1).double(), torch.eye(1).double()
        gaps = [
            _excess(candidate.gaussian_bound(_ramp(T, 1.0), mean, covariance, "posterior"), floor)
            for T in (128, 256)
        ]
        return gaps[0] / gaps[1]

    yield Case(
        "gaussian_bound",
        {"setting": _ramp(128, 1.0)},
        torch.tensor([2.0], dtype=torch.float64),
        run=ratio,
        label="gap at T = 128 over gap at T = 256",
    )


def _euler_limit(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    named = {setting.name for setting in settings_of(implementation)}
    for name in ("linear", "cosine"):
        if name not in named:
            continue

        def limit(candidate: Implementation, name: str = name) -> Tensor:
            mean, covariance = torch.zeros(1).double(), torch.eye(1).double()
            gaps = []
            for T in (10000, 20000):
                bound = candidate.gaussian_bound(Setting(name, T), mean, covariance, "posterior")
                gaps.append(_excess(bound, _entropy(torch.ones(1).double())))
            return 2 * gaps[1] - gaps[0]

        yield Case(
            "gaussian_bound",
            {"setting": Setting(name, 20000)},
            torch.tensor([float(MP.euler) / 2], dtype=torch.float64),
            run=limit,
            label="limit of the gap on N(0, 1) with the posterior variance",
        )


def _interior(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    mean, covariance, values = _eigen(3)

    def limit(candidate: Implementation, power: float) -> Tensor:
        """Richardson's extrapolation removes the 1/T of the discrete sum."""
        totals = []
        for T in (200, 400):
            bound = candidate.gaussian_bound(_ramp(T, power), mean, covariance, "posterior")
            totals.append(_excess(bound, _entropy(values)))
        return 2 * totals[1] - totals[0]

    yield Case(
        "gaussian_bound",
        {"setting": _ramp(200, 1.7)},
        torch.zeros(1, dtype=torch.float64),
        run=lambda candidate: limit(candidate, 1.7) - limit(candidate, 1.0),
        label="limit of the bound, bent interior minus straight",
    )


_SUMMED = (
    "Absolute, nats: on N(0, I) the sizes of 1000 terms sum to 18, each is a product of at most four table entries good to 1e-12, "
    "and adding them up loses at most 1000 · 1.1e-16 of the whole: 7.4e-11."
)

LAWS = (
    Law(
        "I12-value",
        "expected bound on Gaussian data",
        "The expected bound of the best model on N(m, C) is the finite sum with c s²/(ᾱc + s²) per eigenvalue c.",
        "The mean squared error of the posterior mean; everything else in the bound is deterministic.",
        "Linear-Gaussian estimation.",
        {torch.float64: 1e-9},
        "Relative to max(1, |value|); a sum of 1000 terms from an eigendecomposition.",
        _gaussian_bound,
    ),
    Law(
        "I12-entropy",
        "bound above entropy",
        "Expected bound ≥ entropy of the data.",
        "−E ln p_model ≥ −E ln p_data (Gibbs), and the bound lies above the first.",
        "Kullback & Leibler 1951.",
        {torch.float64: 1e-10},
        _SUMMED,
        _above_entropy,
    ),
    Law(
        "I12-tight",
        "tight on N(0, I)",
        "For data N(0, I) and variance β_t, the expected bound equals the entropy at every T.",
        "The reverse of a variance-preserving step on N(0, I) is exactly N(√(1−β) x_t, β).",
        "Ho et al. 2020, section 3.2.",
        {torch.float64: 1e-10},
        _SUMMED,
        _tight,
    ),
    Law(
        "I12-rate",
        "gap falls like 1/T",
        "With fixed ends of the log-SNR the gap on N(0, 1) halves when T doubles.",
        "A left Riemann sum of a smooth integrand errs by O(1/T).",
        "Kingma et al. 2021, section 5.1.",
        {torch.float64: 0.05},
        "The next order is 1/T: 1 % at T = 128.",
        _rate,
        measures="discretization",
    ),
    Law(
        "I12-euler",
        "gap that does not vanish",
        "For linear and cosine with the posterior variance the gap on N(0, 1) tends to γ_Euler/2 nats per dim, not to 0.",
        "At the clean end β is nearly constant, so β̃_t/β_t = (t−1)/t whatever T: the variance-only KLs sum to "
        "½Σ_{t≥2}[1/(t−1) − ln(t/(t−1))] = γ/2.",
        "The sum is the definition of γ; slow for T = 1000, where β_1 … β_10 differ: 0.46 (linear) and 0.41 (cosine).",
        {torch.float64: 0.01},
        "Richardson's extrapolation at T = 10,000 and 20,000 leaves (ln T)/T terms: 0.003.",
        _euler_limit,
        measures="discretization",
    ),
    Law(
        "I13-interior",
        "continuous bound",
        "As T → ∞ the bound depends on the ends of the log-SNR only, not on its course between them.",
        "The sum becomes −½∫ mse(λ) dSNR, an integral over SNR itself.",
        "Kingma et al. 2021, section 5.1.",
        {torch.float64: 1e-3},
        "Richardson's extrapolation at T = 200, 400 leaves O(1/T²).",
        _interior,
        measures="discretization",
    ),
)
