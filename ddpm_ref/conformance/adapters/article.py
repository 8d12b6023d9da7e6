r"""The article's own snippet ("Loss functions in DDPM: why predict only the noise?"), written down as faithfully as it allows.

The article gives a network of two convolutions without a time input, and a loss that draws noise, calls `q_sample` and compares the network's
answer with the noise; `t = torch.randint(0, T, …)`; β linear. It does **not** give `q_sample`: that is filled in here from the formula
that it prints, x_t = √ᾱ_t x0 + √(1−ᾱ_t) ε. It goes from the bound to that loss without the factor between them, and takes the
reverse covariance as "usually the identity". What is said in words only is written down below as the method that it would be:

* `time_steps`: t from 0. Read as an index into tables without an entry for clean data, that is our t − 1: a convention.
* `weight`, `bound_term`: the squared error of ε itself, weight 1 at every t, stands for the bound's term.
* `reverse_variance`: the identity at every t.
* `gaussian_denoise`: what the best network *without a time input* can say on Gaussian data. Such a network knows x_t and not t; of all
  functions of x_t alone the ε-loss with uniform t is least for

      ε̂(x) = Σ_t p(t | x) E[ε | x_t = x, t],        p(t | x) ∝ N(x; √ᾱ_t m, ᾱ_t C + (1−ᾱ_t) I),                (1)

  so that the error found here is the least that the missing input costs, whatever the number of convolutions.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpm_ref.conformance.adapters.instruments import Recorder, column
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting


class DenoiseModel(nn.Module):
    """The article's network: two 3 × 3 convolutions, one channel, no time input."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, 1, 3, padding=1)

    def forward(self, x_t: Tensor) -> Tensor:
        """ε̂(x_t)."""
        answer: Tensor = self.second(functional.relu(self.first(x_t)))
        return answer


class Snippet:
    """`noise_loss` and what it needs, as the article has them: tables without an entry for clean data, t from 0.

    Args:
        T: number of steps.
        dtype: of the tables; torch's default, as in the article, unless given.
    """

    def __init__(self, T: int = 1000, dtype: torch.dtype = torch.float32) -> None:
        self.T = T
        self.beta = torch.linspace(1e-4, 0.02, T, dtype=dtype)
        self.alpha_bar = torch.cumprod(1 - self.beta, dim=0)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Filled in from the formula: √ᾱ_t x0 + √(1−ᾱ_t) ε."""
        kept = column(self.alpha_bar[t], x0)
        return kept.sqrt() * x0 + (1 - kept).sqrt() * noise

    def noise_loss(self, model: nn.Module, x0: Tensor, t: Tensor) -> Tensor:
        """The article's training loss: the mean of ‖ε − ε̂(x_t)‖² over the whole batch."""
        noise = torch.randn_like(x0)
        x_t = self.q_sample(x0, t, noise)
        return functional.mse_loss(noise, model(x_t))

    def draw_steps(self, count: int) -> Tensor:
        """t = torch.randint(0, T)."""
        return torch.randint(0, self.T, (count,))


class Article(Implementation):
    """The snippet under the laws; float64 inputs meet float64 tables, so that a formula is judged and not its rounding."""

    name = "article"
    version = "as printed"
    first_index = 0

    def __init__(self) -> None:
        self.conventions = (
            Convention(
                "t counts from 0",
                "t = torch.randint(0, T, …) is an index into tables whose first entry is β_1: Ho et al.'s t is that index plus 1",
                "the article's training snippet",
                _FromOne,
                ("I11",),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """β linear, T = 1000, and the same with two steps."""
        return Setting("linear", 1000), Setting("linear", 2)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """β and ᾱ, in float64."""
        code = _snippet(setting, torch.float64)
        return {
            "beta": code.beta,
            "alpha_bar": code.alpha_bar,
            "one_minus_alpha_bar": 1 - code.alpha_bar,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`, filled in from the printed formula."""
        return _snippet(setting, x0.dtype).q_sample(x0, self.index(t), noise)

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """What `noise_loss` shows to the network, and the noise that it compares with."""
        network = Recorder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            noise = torch.randn_like(x0)
            torch.manual_seed(seed)
            _snippet(setting, x0.dtype).noise_loss(network, x0, self.index(t))
        return network.seen[0], noise

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        """The noise."""
        if parameterization != "eps":
            raise NotOffered("the article predicts only the noise")
        return eps

    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        """`mse_loss(noise, prediction)`, once per sample because it means over the batch."""
        if (parameterization, weighting) != ("eps", "simple"):
            raise NotOffered("the article has the plain ε-loss only")
        pairs = zip(eps, prediction, strict=True)
        return torch.stack([functional.mse_loss(noise, answer) for noise, answer in pairs])

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        """1, for the plain loss; and 1 for the bound, from which the article arrives at it without a factor."""
        if weighting not in ("simple", "elbo") or parameterization != "eps":
            raise NotOffered("the article weights ε-errors with 1")
        return torch.ones(len(t), dtype=torch.float64)

    def bound_term(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        """‖ε − ε̂‖², summed over dims, with the ε that made x_t from x0."""
        if parameterization != "eps":
            raise NotOffered("the article predicts only the noise")
        kept = column(_snippet(setting, torch.float64).alpha_bar[self.index(t)], x_t)
        noise = (x_t - kept.sqrt() * x0) / (1 - kept).sqrt()
        return (noise - prediction).flatten(1).square().sum(1)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """The identity, "usually"."""
        one = torch.ones(len(t), dtype=torch.float64)
        return one, torch.zeros_like(one)

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """E[x0 | x_t] from the best ε̂(x) without a time input, eq. (1), turned into x0 at the true t."""
        blind = _blind_noise(_snippet(setting, torch.float64).alpha_bar, mean, covariance, x_t)
        kept = column(_snippet(setting, torch.float64).alpha_bar[self.index(t)], x_t)
        return (x_t - (1 - kept).sqrt() * blind) / kept.sqrt()

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        """`torch.randint(0, T, …)`, each with weight 1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Snippet(T).draw_steps(count), torch.ones(count, dtype=torch.float64)


class _FromOne(Article):
    """Reads the snippet's t as an index that starts at 0."""

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        """The snippet's draw, plus 1."""
        t, weights = super().time_steps(count, T, seed)
        return t + 1, weights


def implementations() -> tuple[Implementation, ...]:
    """The snippet."""
    return (Article(),)


def _snippet(setting: Setting, dtype: torch.dtype) -> Snippet:
    if setting.name != "linear" or setting.timesteps is not None or setting.zero_terminal_snr:
        raise NotOffered("the article has the linear schedule only")
    return Snippet(setting.T, torch.float64 if dtype == torch.float64 else torch.float32)


def _blind_noise(kept: Tensor, mean: Tensor, covariance: Tensor, x: Tensor) -> Tensor:
    """Eq. (1) for x `[B, D]`, in the eigenbasis of C."""
    values, basis = torch.linalg.eigh(covariance.double())
    signal, rest = kept[:, None], 1 - kept[:, None]
    spread = signal * values + rest
    offset = x.double()[:, None, :] @ basis - signal.sqrt() * (mean.double() @ basis)
    log_density = -0.5 * (offset**2 / spread + spread.log()).sum(-1)
    noise = rest.sqrt() * offset / spread
    mixed = (torch.softmax(log_density, dim=1)[..., None] * noise).sum(1)
    answer: Tensor = mixed @ basis.T
    return answer
