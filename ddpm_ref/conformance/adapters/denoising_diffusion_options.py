"""Options of denoising-diffusion-pytorch that behave differently under the laws, each offering only what it changes."""

import importlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.denoising_diffusion_calls import (
    PACKAGE,
    answering,
    diffusion,
    image,
    learned,
    learned_library,
    library,
    options,
    shown,
)
from ddpm_ref.conformance.adapters.instruments import (
    Recorder,
    float64_tables,
    installed_version,
    replaced,
)
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting

_LIBRARY = "denoising-diffusion-pytorch"
_LINEAR = Setting("linear", 1000)
_CLAMP = 0.002
"""Between ᾱ_99 and ᾱ_100 of the sigmoid schedule with 100 steps: it changes the last step alone."""


class Option(Implementation):
    """What the options share: the library's version and index; the linear schedule, unless they say otherwise."""

    first_index = 0

    def __init__(self) -> None:
        importlib.import_module(PACKAGE)
        self.version = installed_version(_LIBRARY)

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (_LINEAR,)


class ScaledLinear(Option):
    """`linear_beta_schedule(T)`, T ≠ 1000: β is scaled by 1000/T, so that the end of the chain does not depend on T."""

    name = f"{_LIBRARY}: linear, 100 steps"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                "linear is scaled by 1000/T",
                "β runs from 0.1/T to 20/T, as in improved-diffusion, and not from 1e-4 to 0.02 at every T",
                "denoising_diffusion_pytorch.py, linear_beta_schedule",
                _Scaled,
                ("I24", "I25-terminal", "I15", "I2", "I7", "I1", "I3", "I5", "I16", "I20"),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """The name `linear` at another T."""
        return (Setting("linear", 100),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """The buffer `betas`."""
        return {"beta": diffusion(Setting("linear", 100), "pred_noise", torch.float64).betas}


class _Scaled(ScaledLinear):
    """Reads the name with its scale."""

    def settings(self) -> Sequence[Setting]:
        """The same chain by its numbers."""
        return (Setting("linear from 0.001 to 0.2", 100, beta=_spaced(1e-3, 0.2, 100)),)


class ShortLinear(Option):
    """`linear_beta_schedule(T)`, T < 20: β ends at 20/T > 1, and the chain is NaN without complaint."""

    name = f"{_LIBRARY}: linear, 10 steps"

    def settings(self) -> Sequence[Setting]:
        """No truth is claimed for a β of 2: only that a schedule falls and that results are numbers."""
        return (Setting("linear scaled by 1000/T", 10),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """The buffer `alphas_cumprod`, and the square of `sqrt_alphas_cumprod`."""
        chain = diffusion(Setting("linear", 10), "pred_noise", torch.float64)
        return {"alpha_bar": chain.alphas_cumprod, "beta": chain.sqrt_alphas_cumprod**2}


class IgnoredClamp(Option):
    """`sigmoid_beta_schedule(…, clamp_min=0.002)`: the argument is accepted and not read."""

    name = f"{_LIBRARY}: sigmoid, clamp_min = 0.002"

    def settings(self) -> Sequence[Setting]:
        """Jabri et al. 2023, algorithm 1: γ(t) is clipped to [clip_min, 1]."""
        kept = [max(_sigmoid_curve(k / 100), _CLAMP) for k in range(101)]
        beta = tuple(1 - now / before for before, now in pairwise(kept))
        return (Setting("sigmoid clipped below at 0.002", 100, beta=beta),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """The buffer `alphas_cumprod`."""
        arguments = {
            **options(Setting("sigmoid", setting.T), "pred_noise"),
            "schedule_fn_kwargs": {"clamp_min": _CLAMP},
        }
        with float64_tables(library()):
            chain = library().GaussianDiffusion(Recorder(), **arguments)
        return {"alpha_bar": chain.alphas_cumprod}


class Immiscible(Option):
    """`immiscible=True`: noise is assigned to images inside `q_sample`, the target keeps the old order."""

    name = f"{_LIBRARY}: immiscible=True"

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """What `p_losses` shows to the network, and the noise that its target then is."""
        return shown(setting, x0, self.index(t), seed, immiscible=True)


class OffsetNoise(Option):
    """`offset_noise_strength > 0`: `p_losses` adds to the caller's noise in place.

    The strength is so small (2e-14) that no value that a law compares is moved beyond its tolerance: what is left to see is that the
    argument has changed.
    """

    name = f"{_LIBRARY}: offset_noise_strength > 0"
    once = False
    """Draw the offset at one state of the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.conventions = (
            Convention(
                "the offset is drawn inside",
                "`p_losses` adds one random number per image and channel to the noise it is given: one call is one draw",
                "denoising_diffusion_pytorch.py, GaussianDiffusion.p_losses (offset noise)",
                _OffsetOnce,
                ("I18-repeatable", "I17-separable", "I5", "I7", "I10"),
            ),
        )

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
        """`p_losses(…, offset_noise_strength=2e-14)`."""
        if (parameterization, weighting) != ("v", "simple"):
            raise NotOffered("shown for v and simple")
        chain = answering(setting, "pred_v", image(prediction))
        with torch.random.fork_rng(devices=[], enabled=self.once):
            if self.once:
                torch.manual_seed(0)
            value: Tensor = chain.p_losses(
                image(x0),
                self.index(t),
                noise=image(eps),
                offset_noise_strength=2e-14,
                loss_reduction="none",
            )
        return value


class _OffsetOnce(OffsetNoise):
    """The same offset in each call."""

    once = True


class Learned(Option):
    """`LearnedGaussianDiffusion`: a learned variance between β̃ and β, and the hybrid loss."""

    name = f"{_LIBRARY}: LearnedGaussianDiffusion"

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`model_predictions`, as its DDIM sampler calls it."""
        if source != "eps" or to != "x0":
            raise NotOffered("shown for eps to x0")
        both = torch.cat([prediction, torch.zeros_like(prediction)], dim=1)
        found = learned(setting, both).model_predictions(x_t, self.index(t))
        converted: Tensor = found.pred_x_start
        return converted

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """`p_mean_variance` where the network answers an end of the range: −1 is β̃, +1 is β."""
        x = torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)
        end = torch.full_like(x, -1.0 if variance == "posterior" else 1.0)
        chain = learned(setting, torch.cat([x, end], dim=1))
        _, values, logarithms, _ = chain.p_mean_variance(x=x, t=self.index(t), clip_denoised=False)
        return values.flatten(), logarithms.flatten()

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`p_mean_variance` with 2v − 1 for the second half; at t = 1 its decoder reads the same numbers."""
        if meaning != "range":
            raise NotOffered("the network says a place in the range")
        share = image(2 * said.double() - 1)
        nothing = torch.zeros_like(share)
        chain = learned(setting, torch.cat([nothing, share], dim=1))
        _, *found, _ = chain.p_mean_variance(x=nothing, t=self.index(t), clip_denoised=False)
        variance, log_variance = (part.reshape(said.shape) for part in found)
        return variance, log_variance

    def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
        """`simple_losses + vb_losses * vb_loss_weight`, the factor read off `p_losses` itself."""
        return simple + _hybrid_factor(setting) * bound_term


class LearnedX0(Option):
    """`LearnedGaussianDiffusion(objective="pred_x0")`: accepted, and trained for noise all the same."""

    name = f'{_LIBRARY}: LearnedGaussianDiffusion, objective="pred_x0"'

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
        """`p_losses` with `vb_loss_weight=0`: the unweighted squared error that is left."""
        if (parameterization, weighting) != ("x0", "simple_x0"):
            raise NotOffered("shown for x0 with weight 1")
        said = image(prediction)
        chain = learned(setting, torch.cat([said, torch.zeros_like(said)], dim=1), "pred_x0")
        with replaced(chain, "vb_loss_weight", 0.0):
            value: Tensor = chain.p_losses(
                image(x0), self.index(t), noise=image(eps), loss_reduction="none"
            )
        return value


def implementations() -> tuple[Implementation, ...]:
    """Each option once."""
    return (
        ScaledLinear(),
        ShortLinear(),
        IgnoredClamp(),
        Immiscible(),
        OffsetNoise(),
        Learned(),
        LearnedX0(),
    )


def _spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(low + (high - low) * k / (count - 1) for k in range(count))


def _sigmoid_curve(u: float) -> float:
    """ᾱ at u = t/T of the sigmoid schedule from −3 to 3, τ = 1."""

    def logistic(value: float) -> float:
        return 1 / (1 + exp(-value))

    return (logistic(3) - logistic(6 * u - 3)) / (logistic(3) - logistic(-3))


def _hybrid_factor(setting: Setting) -> float:
    """d(total loss)/d(bound term): two calls of `p_losses`, with its weight and with weight 0.

    The library measures the term in bits (its `NAT`); it is divided out in bits too, so that what remains is λ as the library has it, to be
    compared with λ T.
    """
    x0 = torch.tensor([[[[0.5]]]], dtype=torch.float64)
    step, noise = torch.tensor([500]), torch.ones_like(x0)
    chain = learned(setting, torch.zeros(1, 2, 1, 1, dtype=torch.float64))
    total = chain.p_losses(x0, step, noise=noise)
    with replaced(chain, "vb_loss_weight", 0.0):
        simple = chain.p_losses(x0, step, noise=noise)
    return float((total - simple) / _bound_in_bits(chain, x0, step, noise))


def _bound_in_bits(chain: Any, x0: Tensor, step: Tensor, noise: Tensor) -> float:
    """The KL that `p_losses` adds, from the library's own pieces."""
    x_t = chain.q_sample(x_start=x0, t=step, noise=noise)
    true_mean, _, true_log_variance = chain.q_posterior(x_start=x0, x_t=x_t, t=step)
    mean, _, log_variance, _ = chain.p_mean_variance(x=x_t, t=step, clip_denoised=False)
    kl = learned_library().normal_kl(true_mean, true_log_variance, mean, log_variance)
    return float(kl.mean() / log(2))
