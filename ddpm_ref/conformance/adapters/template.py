"""My diffusion code under the laws. Fill in what you have, delete what you do not, and run

    ddpm-bench verify --against THIS_FILE.py:MyDiffusion

Everything is optional: a method that is absent is reported as "not offered" and is no failure. As it stands, this file checks the four
lines of `q_sample` below; replace them by a call of your own code.

What the laws hand over and expect:

* t is int64 [B] with values 1 … T, as in Ho et al. 2020. Where your code counts from 0, leave `first_index = 0` and
  call `self.index(t)`; where it counts from 1, write `first_index = 1`.
* x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise. Samples are [B, *dims], mostly [B, D]: where your code takes images only,
  hand it x0.reshape(B, D, 1, 1) and reshape what it returns. A mean over dims is said so; nats are summed.
* Inputs come in float64, float32, bfloat16 and float16. Compute with what you are given where you can: a law that fails in float64
  shows a wrong formula, one that fails only below shows lost precision.
"""

import torch
from torch import Tensor

from ddpm_ref.conformance import Implementation, NotOffered, Posterior, Setting  # noqa: F401 - for what you fill in

# from my_project.diffusion import my_q_sample            # your code


class MyDiffusion(Implementation):
    """My code, one method per function that it has."""

    name = "my diffusion"
    first_index = 0  # what your code calls the first step: 0 or 1

    # Dtypes that your code accepts; leave out what it refuses.
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

    def settings(self) -> tuple[Setting, ...]:
        """The schedules that your code has.

        `linear` (beta from 1e-4 to 0.02), `cosine` (s = 0.008, beta <= 0.999) and `sigmoid` (-3 to 3) are known by name. For any
        other give its numbers: Setting("mine", 100, beta=(0.001, …)).
        """
        return (Setting("linear", 1000),)

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Noise the data. Replace these lines by your own call: return my_q_sample(x0, self.index(t), noise)."""
        beta = torch.linspace(1e-4, 0.02, setting.T, dtype=torch.float64)
        kept = torch.cumprod(1 - beta, dim=0)[self.index(t)]
        kept = kept.reshape(-1, *[1] * (x0.ndim - 1))
        return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)

    # Beside eps, x0, v, score and mean there is the velocity x0 - eps of flow matching, where your code has it.
    # parameterizations = ("eps", "x0", "v", "flow")

    # Take away the "# " in front of what your code has.

    # def tables(self, setting):
    #     """Tables [T] for t = 1 … T: any of beta, alpha_bar, one_minus_alpha_bar, log_snr, snr, posterior_variance."""
    #     return {"beta": my_betas, "alpha_bar": my_alphas_cumprod}

    # def posterior(self, setting, x0, x_t, t):
    #     """q(x_{t-1} | x_t, x0); at t = 1 the variance is 0 and its logarithm -inf. Leave out what you do not have."""
    #     mean, variance, log_variance = my_q_posterior(x0, x_t, self.index(t))
    #     return Posterior(mean, variance=variance, log_variance=log_variance)

    # def target(self, setting, parameterization, x0, eps, t):
    #     """What the network is trained to say: parameterization is eps, x0, v, score or mean."""
    #     if parameterization != "eps":
    #         raise NotOffered("my code predicts the noise only")  # a result, and no failure
    #     return eps

    # def convert(self, setting, prediction, x_t, t, source, to):
    #     """The same prediction in another parameterization, such as eps -> x0."""

    # def weight(self, setting, weighting, t, parameterization):
    #     """Factor [B] on the squared error: simple, simple_x0, simple_v, elbo, truncated_snr, min_snr (gamma 5), p2."""

    # def loss(self, setting, prediction, x0, eps, t, parameterization, weighting):
    #     """Weighted squared error, mean over dims, one number per sample [B]."""

    # def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
    #     """KL between Gaussians, elementwise, in nats."""

    # def discretized_log_likelihood(self, x, mean, log_scale, levels):
    #     """ln of the normal mass in x's bin on a lattice of `levels` values in [-1, 1], elementwise."""

    # def sampler_step(self, setting, prediction, x_t, t, noise, parameterization, sampler, eta):
    #     """One step t -> t-1 with the noise given; sampler is ddpm or ddim; no clipping."""

    # There are more: python -c "import ddpm_ref.conformance as c; help(c.Implementation)"
