r"""What stands between a network and the prediction that it makes: a skip from x_t to the output.

A network F with a skip c predicts

    f(x_t, t) = c(t) x_t + F(x_t, t).                                                                           (1)

**Learned.** c is one number for every t, trained with the rest, 0 at first. All outputs then span the same set {cI + W}, whichever of
ε, x_0 or v is asked for; a fixed skip is what distinguishes them (an ε-output is a skip of 1/√ᾱ in x_0's space, v one of √ᾱ).

**EDM's preconditioning** (Karras et al. 2022, table 1 and appendix B.6) predicts x_0, in their variable y = x_t/√ᾱ = x_0 + s ε with
s = √(1−ᾱ)/√ᾱ. Written for x_t = √ᾱ x_0 + √(1−ᾱ) ε, with σ_d the standard deviation of the data and u = 1−ᾱ + ᾱ σ_d² the variance of x_t,

    x̂_0 = √ᾱ σ_d²/u · x_t + √(1−ᾱ) σ_d/√u · F(x_t/√u, t):                                                         (2)

the input has unit variance, the skip is the Wiener gain for white data of that variance, and the target of F has unit variance
at every t. Their weight 1/c_out² in x_0 space is `edm(sigma_data)` of `ddpm_ref.objective`. All three factors are finite at ᾱ = 0.

**Learned variance.** A network of 2C channels says in the second C where ln σ_t² lies between ln β̃_t and ln β_t (`ddpm_ref.learned` eq. 1), with
v = (output + 1)/2: 0 at first, the geometric mean. A chain on fewer steps has other ends, so a sampler asks for the module on its own schedule.

At a t between two steps (continuous t) the log-SNR is interpolated linearly.
"""

import torch
from torch import Tensor, nn

from ddpm_ref.learned import range_ends
from ddpm_ref.schedule import Schedule

_LOG_SNR_FLOOR = -100.0  # interpolating towards −∞ would be NaN; e^−100 is 0 beside 1 in float64

SKIPS = ("none", "learned", "edm")


class LearnedSkip(nn.Module):
    """Eq. (1) with a scalar c(t) for every t = 1 … T, 0 at first.

    Args:
        inner: F; of an output of more channels than x_t the first are the prediction, and the others pass unchanged.
        steps: T.
    """

    def __init__(self, inner: nn.Module, steps: int) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.zeros(steps))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, *dims]` at the steps `t` `[B]`."""
        place = t.clamp(1, len(self.scale)) - 1
        low = place.long().clamp(max=max(len(self.scale) - 2, 0))
        share = (place - low).to(x_t.dtype)
        high = (low + 1).clamp(max=len(self.scale) - 1)
        scale = self.scale[low] * (1 - share) + self.scale[high] * share
        return _with_skip(scale, x_t, self.inner(x_t, t))


class Preconditioned(nn.Module):
    """Eq. (2): the estimate of x_0 by a network that sees and answers numbers of unit variance.

    Args:
        inner: F, as for `LearnedSkip`.
        schedule: the noise schedule.
        sigma_data: σ_d, standard deviation of the data, > 0.
    """

    log_snr: Tensor

    def __init__(self, inner: nn.Module, schedule: Schedule, sigma_data: float = 0.5) -> None:
        super().__init__()
        if not 0 < sigma_data < float("inf"):
            raise ValueError(
                f"sigma_data = {sigma_data}; it is the standard deviation of the data: about 0.5 for images on [-1, 1]"
            )
        self.inner, self.sigma_data = inner, sigma_data
        known = schedule.log_snr[1:].clamp(min=_LOG_SNR_FLOOR)
        self.register_buffer("log_snr", known, persistent=False)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂_0 `[B, *dims]` from `x_t` at the steps `t` `[B]`."""
        log_snr = self._log_snr_at(t)
        kept, noise = torch.sigmoid(log_snr), torch.sigmoid(-log_snr)
        variance = noise + kept * self.sigma_data**2
        scaled = _per_row(variance.rsqrt(), x_t) * x_t
        output = self.inner(scaled, t)
        gain = self.sigma_data * (noise / variance).sqrt()
        channels = x_t.shape[1]
        prediction = _per_row(gain, x_t) * output[:, :channels]
        rest = output[:, channels:]
        skip = kept.sqrt() * self.sigma_data**2 / variance
        return _with_skip(skip, x_t, torch.cat([prediction, rest], dim=1))

    def _log_snr_at(self, t: Tensor) -> Tensor:
        place = t - 1
        low = place.long().clamp(0, max(len(self.log_snr) - 2, 0))
        high = (low + 1).clamp(max=len(self.log_snr) - 1)
        share = (place - low).to(self.log_snr.dtype)
        return self.log_snr[low] * (1 - share) + self.log_snr[high] * share


class LearnedRange(nn.Module):
    """A network of twice the channels as the pair (prediction, log-variance) that `elbo` and `sample` take.

    Args:
        inner: answers `[B, 2C, *dims]`: the prediction, then what is said about the variance.
        schedule: the steps of the chain; `schedule.timesteps` are those that `inner` knows.
        steps: T of the training.
    """

    low: Tensor
    high: Tensor

    def __init__(self, inner: nn.Module, schedule: Schedule, steps: int) -> None:
        super().__init__()
        self.inner, self.steps = inner, steps
        ends = range_ends(torch.arange(1, schedule.T + 1), schedule)
        for name, values in zip(("low", "high"), ends, strict=True):
            table = torch.full((steps + 1,), float("nan"), dtype=torch.float64)
            table[schedule.timesteps] = values
            self.register_buffer(name, table, persistent=False)

    def on(self, schedule: Schedule) -> "LearnedRange":
        """The same network on a chain of fewer steps, whose variances lie between other ends."""
        weight = next(self.parameters())
        return LearnedRange(self.inner, schedule, self.steps).to(weight.device, weight.dtype)

    def forward(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(prediction, ln σ_t²), both `[B, C, *dims]`, at the steps `t` `[B]`."""
        prediction, said = self.inner(x_t, t).chunk(2, dim=1)
        share = (said + 1) / 2
        low, high = _per_row(self.low[t], share), _per_row(self.high[t], share)
        return prediction, share * high + (1 - share) * low


def _per_row(scale: Tensor, like: Tensor) -> Tensor:
    return scale.to(like.dtype).view(-1, *(1,) * (like.ndim - 1))


def _with_skip(scale: Tensor, x_t: Tensor, output: Tensor) -> Tensor:
    """c·x_t + output, on the channels that are the prediction."""
    channels = x_t.shape[1]
    prediction = _per_row(scale, x_t) * x_t + output[:, :channels]
    if output.shape[1] == channels:
        return prediction
    return torch.cat([prediction, output[:, channels:]], dim=1)
