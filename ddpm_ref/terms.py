r"""The terms of the variational bound, and the one that needs no model: L_T = KL(q(x_T | x_0) ‖ N(0, I)).

With a = ᾱ_T, per dimension: ½[a x_0² + (−a − ln(1−a))], where the bracket is e^u − 1 − u ≥ 0 with u = ln(1−a).              (1)
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from ddpm_ref.gaussian import expm1_minus
from ddpm_ref.reverse import Protocol, check_data, sum_dims
from ddpm_ref.schedule import Schedule, check_schedule


@dataclass(frozen=True, eq=False)
class ElboTerms:
    """The terms of the bound per example, float64, nats summed over dims; their sum bounds −ln p(x_0) from above.

    Attributes:
        prior: L_T `[B]`, eq. (2) of `elbo`.
        diffusion: `[B, T−1]`, column k is t = k + 2, eq. (3) of `elbo`.
        reconstruction: L_0 `[B]`, eq. (4) of `elbo`.
        dims: number of dimensions of one example.
        protocol: how the terms were evaluated; None for closed forms.
    """

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor
    dims: int
    protocol: Protocol | None = None

    @property
    def total(self) -> Tensor:
        """L_T + Σ_t L_{t−1} + L_0, `[B]` nats."""
        return self.prior + self.diffusion.sum(dim=1) + self.reconstruction

    @property
    def bits_per_dim(self) -> Tensor:
        """total/(dims · ln 2), `[B]` bits."""
        return self.total / (self.dims * math.log(2))


def prior_kl(x0: Tensor, schedule: Schedule) -> Tensor:
    """KL(q(x_T | x_0) ‖ N(0, I)) = ½ Σ_d [ᾱ_T x_0² − ᾱ_T − ln(1−ᾱ_T)], float64 `[B]` nats; eq. (1).

    Exact down to KLs that are far below 1e-10 nats: no term cancels.

    Args:
        x0: data `[B, *dims]`.
        schedule: only ᾱ_T matters.

    Raises:
        ValueError: x0 is not finite or has no dimensions.
        TypeError: x0 is not floating point, or the schedule is no `Schedule`.
    """
    check_schedule(schedule)
    check_data("x0", x0)
    signal = schedule.sqrt_alpha_bar[-1].item() * x0.double()  # before squaring, which may overflow
    log_noise = logsigmoid(-schedule.log_snr[-1])
    size = math.prod(x0.shape[1:])
    return 0.5 * (sum_dims(signal.square()) + size * expm1_minus(log_noise).item())
