r"""What a bottleneck costs: the exact price of rank h for every output.

x_0 ~ N(0, Σ) with eigenvalues ℓ_i; at one t let α = √ᾱ, σ = √(1−ᾱ), and in each eigendirection d = α²ℓ + σ² the variance of x_t and
k = αℓ/d the Wiener gain (`oracle.skip`, 2). Whatever a network is trained to say, x̂_0 = c x_t + (a multiple of its output), with
the fixed skip c of that output (`oracle.skip`, 1); the multiple depends on t alone, so that at one t no weighting changes what it learns.

**The price of rank h.** A linear network of rank h, one for this t, makes x̂_0 = c x_t + W x_t with rank W ≤ h. The error of E[x_0 | x_t]
is uncorrelated with x_t, so that with K = diag k and C = diag d in the eigenbasis

    E‖x_0 − x̂_0‖² = E‖x_0 − E[x_0 | x_t]‖² + ‖(K − cI) C^½ − W C^½‖²_F.                                       (1)

The first term belongs to x_t and to no network. The second is least where W C^½ keeps the h largest singular values of the diagonal
matrix (K − cI) C^½ (Eckart & Young 1936; reduced-rank regression, Izenman 1975). A direction that is dropped therefore costs

    p = d (k − c)² = g²/d,        g = αℓ − c d,                                                              (2)

and the excess over the optimum is the sum of the D − h least prices:

    E‖x̂_0 − E[x_0 | x_t]‖² = Σ p over the D − h cheapest directions.                                          (3)

    output                  gap g                            price p
    x0                      αℓ                               α²ℓ²/d
    eps, score              −σ²/α                            σ⁴/(α²d)
    v                       −ασ²(1 − ℓ)                      α²σ⁴(1−ℓ)²/d
    mean                    αℓ + (c_t/c_0) d                 (αℓ + (c_t/c_0) d)²/d
    x_0 − ε ("flow")        σ(αℓ − σ)/(α + σ)                σ²(αℓ − σ)²/((α + σ)²d)

So x0 is cheaper than eps in a direction where ℓ·SNR < 1, v is free where ℓ = 1, flow where ℓ = σ/α; off the data's manifold, ℓ = 0, x0 is
free, v costs α²σ² and eps σ²/α².

**The best skip.** For dropped directions S the best c is the d-weighted mean of their gains, which is the Wiener gain at their mean
variance ℓ̄; with d̄ = α²ℓ̄ + σ²

    c = αℓ̄/d̄,        g = ασ²(ℓ − ℓ̄)/d̄.                                                                      (4)

For 0 ≤ c ≤ 1/α the price (2) falls in ℓ until k = c and rises after, so that the cheapest directions are neighbours in order of ℓ: S is one
of h + 1 windows. EDM's skip is (4) with ℓ̄ = σ_data²: best where the dropped directions have the data's mean variance, and not where they are
off the manifold.

**A learned skip**, a scalar c(t) beside the network, makes every output span {cI + W : rank W ≤ h}: the excess is that of (4) for all.

**Silent** about networks that are not linear, that share weights between levels of noise, or that are as wide as the data, h ≥ D, where
(3) is 0. A bias removes the mean of the data, which is why it may be taken as 0.

**Numerics.** Every gap of the table is a product, or a sum of equal signs, but for ℓ − 1, which does not round; p is formed as g·(g/d).
With a skip given as a number, g = αℓ(1 − αc) − cσ² is what that number determines.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_ref.oracle.base import parameter
from ddpm_ref.oracle.skip import SKIPS, check_defined, per_step, wiener_gain
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import check_count, check_name, check_steps


def rank_limited_excess(
    eigenvalues: Tensor,
    rank: int,
    t: Tensor,
    schedule: Schedule,
    *,
    parameterization: str | None = None,
    skip: Tensor | float | None = None,
) -> Tensor:
    """E‖x̂0 − E[x0 | x_t]‖² of the best linear network of that rank, summed over dims; eq. (3).

    Args:
        eigenvalues: ℓ `[D]` of the data's covariance, in any order, finite and ≥ 0; used in float64.
        rank: h, 0 … D.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.
        parameterization: the network's output, by the squared error of which it is trained: `eps`, `x0`, `v`, `mean`, or
            `score`, which costs what `eps` does.
        skip: in place of an output, the fixed skip c of x̂0 = c·x_t + network, a number or `[B]`; that of flow matching is
            `output_skip("flow", t, schedule)`.

    Returns:
        float64 `[B]`, in squared units of x0, on t's device.

    Raises:
        ValueError: an output that is undefined because ᾱ_t = 0 (zero terminal SNR; checked where t is on the CPU), both or
            neither of `parameterization` and `skip`, a rank or t out of range, or eigenvalues that no covariance has.
        TypeError: arguments of another type.
    """
    spectrum = _checked_spectrum(eigenvalues, rank, t, schedule)
    if (parameterization is None) == (skip is None):
        raise ValueError(
            f"parameterization = {parameterization!r} and skip = {skip!r}: give one of the two, "
            "parameterization='x0' or skip=0.0"
        )
    if skip is not None:
        gap = _gap_of_skip(spectrum, per_step(skip, t, "skip")[:, None], t, schedule)
    else:
        check_name("parameterization", parameterization, _GAPS)
        check_defined(str(parameterization), t, schedule)
        gap = _GAPS[str(parameterization)](spectrum, t, schedule)
    prices = gap * (gap / _noisy(spectrum, t, schedule))
    return prices.sort(dim=1).values[:, : len(spectrum) - rank].sum(dim=1)


def best_skip(eigenvalues: Tensor, rank: int, t: Tensor, schedule: Schedule) -> Tensor:
    """The fixed skip c with the least excess at that rank, which a learned one reaches; eq. (4).

    Its excess is `rank_limited_excess(…, skip=c)`. Where nothing is dropped (rank = D) any skip will do, and this is the Wiener
    gain at the data's mean variance.

    Args:
        eigenvalues: ℓ `[D]`, as in `rank_limited_excess`.
        rank: h, 0 … D.
        t: steps 1 … T, integer `[B]`.
        schedule: the noise schedule.

    Returns:
        c, float64 `[B]`, on t's device.

    Raises:
        ValueError, TypeError: as `rank_limited_excess`.
    """
    spectrum = _checked_spectrum(eigenvalues, rank, t, schedule)
    windows = spectrum.sort().values.unfold(0, len(spectrum) - rank or rank, 1)
    centres = windows.mean(dim=1)
    chosen = [_cheapest_window(windows, centres, step[None], schedule) for step in t]
    return wiener_gain(torch.stack(chosen) if chosen else centres[:0], t, schedule)


Gap = Callable[[Tensor, Tensor, Schedule], Tensor]


def _roots(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(α, σ²), `[B, 1]` each."""
    signal, remainder = (
        schedule.lookup(name, t)[:, None] for name in ("sqrt_alpha_bar", "one_minus_alpha_bar")
    )
    return signal, remainder


def _noisy(spectrum: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """d = α²ℓ + σ², `[B, D]`."""
    signal, remainder = _roots(t, schedule)
    return signal**2 * spectrum + remainder


def _gap_of_x0(spectrum: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    signal, _ = _roots(t, schedule)
    return signal * spectrum


def _gap_of_eps(spectrum: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    signal, remainder = _roots(t, schedule)
    return (-remainder / signal).expand(-1, len(spectrum))


def _gap_of_v(spectrum: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    signal, remainder = _roots(t, schedule)
    return signal * remainder * (spectrum - 1)


def _gap_of_mean(spectrum: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    signal, _ = _roots(t, schedule)
    return signal * spectrum - SKIPS["mean"](t, schedule)[:, None] * _noisy(spectrum, t, schedule)


def _gap_of_flow(spectrum: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    signal, remainder = _roots(t, schedule)
    sigma = remainder.sqrt()
    return sigma * (signal * spectrum - sigma) / (signal + sigma)


_GAPS: dict[str, Gap] = {
    "x0": _gap_of_x0,
    "eps": _gap_of_eps,
    "score": _gap_of_eps,
    "v": _gap_of_v,
    "mean": _gap_of_mean,
    "flow": _gap_of_flow,
}
"""g = αℓ − c d of each parameterization, `[B, D]`, in the form that does not cancel."""


def _gap_of_skip(spectrum: Tensor, skip: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    signal, remainder = _roots(t, schedule)
    return signal * spectrum * (1 - signal * skip) - skip * remainder


def _cheapest_window(windows: Tensor, centres: Tensor, step: Tensor, schedule: Schedule) -> Tensor:
    """Mean variance ℓ̄ of the neighbours `[W, n]` that cost least when dropped together, each at its own best skip; eq. (4)."""
    signal, remainder = _roots(step, schedule)
    around = signal**2 * centres[:, None] + remainder
    gap = signal * remainder * ((windows - centres[:, None]) / around)
    cost = (gap * (gap / (signal**2 * windows + remainder))).sum(dim=1)
    return centres[cost.argmin()]


def _checked_spectrum(eigenvalues: Tensor, rank: int, t: Tensor, schedule: Schedule) -> Tensor:
    """ℓ as float64 `[D]` on t's device, after every check of the four arguments."""
    spectrum = parameter(eigenvalues, "eigenvalues")
    if spectrum.ndim != 1 or spectrum.numel() == 0:
        raise ValueError(
            f"eigenvalues has shape {list(spectrum.shape)}; pass the spectrum [D] of a covariance, "
            "torch.linalg.eigvalsh(covariance)"
        )
    if spectrum.min().item() < 0:
        raise ValueError(
            f"eigenvalues holds {spectrum.min().item():.3g}; a covariance has none below 0: where rounding made it, "
            "pass eigenvalues.clamp(min=0)"
        )
    if not bool(torch.isfinite(spectrum.sum())):
        raise ValueError("eigenvalues sum to more than float64 holds: rescale the data")
    if check_count("rank", rank, least=0) > len(spectrum):
        raise ValueError(
            f"rank = {rank}; {len(spectrum)} eigenvalues allow 0 … {len(spectrum)}: a wider network costs nothing, as one of "
            "full rank does"
        )
    check_schedule(schedule)
    check_steps(t, schedule.T)
    return spectrum.to(t.device)
