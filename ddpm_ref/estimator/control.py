r"""Control variates: what a term would be if the data were Gaussian.

A term of the bound, or of a weighted loss, is κ_t times the squared error of x̂_0, up to a constant. Fit N(m, U diag(s) Uᵀ) to the data.
For its exact denoiser, with z the coordinates of x_0 − m and e those of ε along U, the term of step t is, for this very image and this
very noise draw (`oracle.gaussian` has the derivation; a = ᾱ_t, b = 1−ᾱ_t, c = a s + b, k = √a s/c),

    g(x_0, t, ε) = κ_t Σ_d [(b/c) z − k√b e]² + const_t,         κ_t = c_0²/(2σ_t²) in the bound.               (1)

Two parts of it have mean zero, and a regression may take any multiple of either without bias:

    image:  H = κ_t Σ_d (b/c)² (z² − s)                   over the data set, whose mean of z² is s,              (2)
    noise:  G = κ_t Σ_d [k² b (e² − 1) − 2 (b/c) k√b z e]    over ε, for every image.                             (3)

H removes what an image's energy explains, G what this draw of the noise explains. At high noise data are nearly Gaussian to a
denoiser, and little is left.
"""

from torch import Tensor

from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.oracle.expected import mean_gain
from ddpm_ref.schedule import Schedule

_LARGEST_FULL = 4096


class GaussianControl:
    """(2), (3) for a data set and a schedule.

    Above 4096 dimensions the covariance is taken diagonal: an eigendecomposition would cost more than the evaluations
    that it saves.

    Args:
        data: the finite data set `[N, *dims]`.
        schedule: T steps.
        price: κ_t, what a squared error of x̂0, summed over dims, counts for at t = 1 … T, float64 `[T]`.
    """

    def __init__(self, data: Tensor, schedule: Schedule, price: Tensor) -> None:
        self.mean, self.spectrum, self.basis = _moments(data)
        a, b = schedule.alpha_bar[1:, None], schedule.one_minus_alpha_bar[1:, None]
        c = a * self.spectrum + b
        scale = price[:, None]
        gain = a.sqrt() * self.spectrum / c
        self.on_image = scale * (b / c) ** 2  # [T, D]
        self.on_noise = scale * gain**2 * b
        self.on_both = -2 * scale * (b / c) * gain * b.sqrt()

    @property
    def profile(self) -> Tensor:
        """Mean of (1) over data and noise without its constant, `[T]` nats: how much each step matters."""
        return (self.on_image * self.spectrum + self.on_noise).sum(dim=1)

    def features(self, x0: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(H, G) of rows: examples `[n, *dims]`, steps `[n]`, noise `[n, *dims]`; float64 `[n]` on the CPU."""
        z, e = self._rotate(x0, centre=True), self._rotate(noise, centre=False)
        image = (self.on_image[t - 1] * (z**2 - self.spectrum)).sum(dim=1)
        draw = self.on_noise[t - 1] * (e**2 - 1) + self.on_both[t - 1] * z * e
        return image, draw.sum(dim=1)

    def image_total(self, x0: Tensor, coefficients: Tensor) -> Tensor:
        """Σ_t coefficients[t−1]·H(x0, t), float64 `[n]`, for coefficients `[T]`."""
        excess = self._rotate(x0, centre=True) ** 2 - self.spectrum
        return excess @ (self.on_image.T @ coefficients)

    def _rotate(self, x: Tensor, *, centre: bool) -> Tensor:
        rows = x.detach().cpu().double().reshape(len(x), -1)
        rows = rows - self.mean if centre else rows
        return rows if self.basis is None else rows @ self.basis


def bound_price(schedule: Schedule, variance: Tensor) -> Tensor:
    """κ_t = c_0²/(2σ_t²) of the bound's terms, float64 `[T]`, for a table σ_t² `[T+1]`."""
    return 0.5 * mean_gain(schedule)[1:] / variance[1:]


def _moments(data: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean, variances along the basis, and the basis (None = the pixels)."""
    rows = data.detach().cpu().double().reshape(len(data), -1)
    if rows.shape[1] <= _LARGEST_FULL:
        oracle = GaussianOracle.fit(rows)
        return oracle.mean, oracle.spectrum, oracle.basis
    return rows.mean(dim=0), rows.var(dim=0, correction=0), None
