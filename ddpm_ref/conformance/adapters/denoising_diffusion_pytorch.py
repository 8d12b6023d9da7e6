r"""lucidrains' denoising-diffusion-pytorch: `GaussianDiffusion`, `LearnedGaussianDiffusion`, their densities.

**Index.** Its t = 0 is our t = 1. **Tables** are computed in float64 (but for two constants of the sigmoid) and registered in float32; float64
inputs meet tables that its own constructor left in float64 (`instruments.float64_tables`), lower ones meet them as installed.

The linear schedule is scaled by 1000/T, as in improved-diffusion: it is ours at T = 1000 alone. A stub takes the network's place and
answers the prediction under test; images are viewed as `[B, 1, 1, D]`, because some functions ask for four axes. Its samplers clip x_0
always; the adapter turns that off by overriding the argument, and hands its own draw of noise the law's noise.
"""

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import log, prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import (
    Recorder,
    column,
    float64_tables,
    given_noise,
    installed_version,
    replaced,
)
from ddpm_ref.conformance.implementation import (
    Convention,
    Implementation,
    Model,
    NotOffered,
    Posterior,
    Setting,
)

_PACKAGE = "denoising_diffusion_pytorch"
_OBJECTIVES = {"eps": "pred_noise", "x0": "pred_x0", "v": "pred_v"}
_IMAGE_SIZE = 4
"""A constructor argument that nothing under test reads."""


class DenoisingDiffusion(Implementation):
    """`GaussianDiffusion` with a stub for its network."""

    name = "denoising-diffusion-pytorch"
    first_index = 0
    table_dtype = torch.float32

    def __init__(self) -> None:
        importlib.import_module(_PACKAGE)
        self.version = installed_version("denoising-diffusion-pytorch")
        self.conventions = (
            Convention(
                "log-variance clipped at t = 1",
                "β̃_1 = 0 has no logarithm, so `posterior_log_variance_clipped` is ln 1e-20 there, as its name says; "
                "nothing in this class uses it at t = 1",
                "denoising_diffusion_pytorch.py, GaussianDiffusion.__init__ and p_sample (`if t > 0`)",
                _UnclippedLogarithm,
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """Its three named schedules, and short chains of those that are not scaled by T."""
        return (
            Setting("linear", 1000),
            Setting("cosine", 1000),
            Setting("sigmoid", 1000),
            Setting("cosine", 1),
            Setting("cosine", 13),
        )

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Its buffers, and `loss_weight` of pred_x0, which is the SNR; by its own code, left in float64."""
        chain = _diffusion(setting, "pred_noise", torch.float64)
        return {
            "beta": chain.betas,
            "alpha_bar": chain.alphas_cumprod,
            "one_minus_alpha_bar": chain.sqrt_one_minus_alphas_cumprod**2,
            "snr": _diffusion(setting, "pred_x0", torch.float64).loss_weight,
            "posterior_variance": chain.posterior_variance,
        }

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`."""
        noisy: Tensor = _diffusion(setting, "pred_noise", x0.dtype).q_sample(
            x0, self.index(t), noise
        )
        return noisy

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """What `p_losses` shows to the network, and the noise that its target then is."""
        return _shown(setting, x0, self.index(t), seed)

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`q_posterior`: mean, variance, clipped log-variance."""
        chain = _diffusion(setting, "pred_noise", x_t.dtype)
        return Posterior(*chain.q_posterior(x0, x_t, self.index(t)))

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        """`predict_v`; the other targets are the tensors themselves."""
        if parameterization != "v":
            raise NotOffered(f"{self.name} computes a target for v only (`predict_v`)")
        velocity: Tensor = _diffusion(setting, "pred_v", x0.dtype).predict_v(x0, self.index(t), eps)
        return velocity

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`model_predictions` (eps and x0 from eps, x0, v), and `p_mean_variance` for the mean."""
        if source not in _OBJECTIVES or to not in ("eps", "x0", "mean"):
            raise NotOffered(
                f"{self.name} converts eps, x0 and v to eps, x0 and mean, not {source} to {to}"
            )
        chain = _answering(setting, _OBJECTIVES[source], prediction)
        if to == "mean":
            mean: Tensor = chain.p_mean_variance(x_t, self.index(t), clip_denoised=False)[0]
            return mean
        found = chain.model_predictions(x_t, self.index(t))
        converted: Tensor = found.pred_noise if to == "eps" else found.pred_x_start
        return converted

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        """The buffer `loss_weight`: plain (our `simple`) or with `min_snr_loss_weight`."""
        if weighting not in ("simple", "min_snr") or parameterization not in _OBJECTIVES:
            raise NotOffered(f"{self.name} weights eps, x0 and v with simple and min_snr")
        chain = _diffusion(
            setting, _OBJECTIVES[parameterization], torch.float64, min_snr=weighting == "min_snr"
        )
        factor: Tensor = chain.loss_weight[self.index(t)]
        return factor

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
        """`p_losses(…, loss_reduction="none")`."""
        if weighting not in ("simple", "min_snr") or parameterization not in _OBJECTIVES:
            raise NotOffered(f"{self.name} has losses for eps, x0 and v, simple and min_snr")
        chain = _answering(
            setting,
            _OBJECTIVES[parameterization],
            _image(prediction),
            min_snr=weighting == "min_snr",
        )
        value: Tensor = chain.p_losses(
            _image(x0), self.index(t), noise=_image(eps), loss_reduction="none"
        )
        return value

    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        """`p_sample`, one sample at a time, without its clipping; its DDIM exists as a whole loop only."""
        if sampler != "ddpm" or parameterization not in _OBJECTIVES:
            raise NotOffered(f"{self.name} offers single ddpm steps from eps, x0 and v")
        steps = [
            _ancestral(setting, _OBJECTIVES[parameterization], *one)
            for one in zip(
                prediction.split(1),
                x_t.split(1),
                noise.split(1),
                self.index(t).tolist(),
                strict=True,
            )
        ]
        return torch.cat(steps)

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        """`p_sample_loop` or `ddim_sample`, without clipping."""
        if parameterization not in _OBJECTIVES or sampler not in ("ddpm", "ddim"):
            raise NotOffered(f"{self.name} samples from eps, x0 and v with ddpm and ddim")

        def network(x: Tensor, index: Tensor, *unused: object) -> Tensor:
            return _image(model(x.reshape(shape), index + 1 - self.first_index))

        chain = _answering(setting, _OBJECTIVES[parameterization], network)
        loop = chain.p_sample_loop if sampler == "ddpm" else chain.ddim_sample
        with replaced(_module(), "tqdm", _silent):
            drawn: Tensor = loop((shape[0], 1, 1, prod(shape[1:])))
        return drawn.clone().reshape(shape)

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        """`normal_kl`."""
        value: Tensor = _learned_module().normal_kl(mean1, log_var1, mean2, log_var2)
        return value

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        """`discretized_gaussian_log_likelihood`: 256 levels."""
        if levels != 256:
            raise NotOffered(f"{self.name} has the lattice of 256 levels only, not {levels}")
        value: Tensor = _learned_module().discretized_gaussian_log_likelihood(
            *torch.broadcast_tensors(x), means=mean.expand_as(x), log_scales=log_scale.expand_as(x)
        )
        return value


class _UnclippedLogarithm(DenoisingDiffusion):
    """Reads the clipped log-variance as "minus infinity" where the variance is 0."""

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """As the base class, with ln 0 = −∞."""
        chain = _diffusion(setting, "pred_noise", x_t.dtype)
        mean, variance, clipped = chain.q_posterior(x0, x_t, self.index(t))
        return Posterior(mean, variance, clipped.masked_fill(variance == 0, -torch.inf))


class ShortLinear(Implementation):
    """`linear_beta_schedule(T)` for T < 20: scaled by 1000/T, β ends at 20/T > 1, and the chain is NaN without complaint."""

    name = "denoising-diffusion-pytorch: linear, 10 steps"
    first_index = 0
    table_dtype = torch.float32

    def __init__(self) -> None:
        importlib.import_module(_PACKAGE)
        self.version = installed_version("denoising-diffusion-pytorch")

    def settings(self) -> Sequence[Setting]:
        """Ten steps."""
        return (Setting("linear", 10),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """The buffers `betas` and `alphas_cumprod`."""
        chain = _diffusion(setting, "pred_noise", torch.float64)
        return {"beta": chain.betas, "alpha_bar": chain.alphas_cumprod}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`."""
        noisy: Tensor = _diffusion(setting, "pred_noise", x0.dtype).q_sample(
            x0, self.index(t), noise
        )
        return noisy


class Immiscible(Implementation):
    """`immiscible=True`: noise is assigned to images inside `q_sample`, the target keeps the old order."""

    name = "denoising-diffusion-pytorch: immiscible=True"
    first_index = 0
    table_dtype = torch.float32

    def __init__(self) -> None:
        importlib.import_module(_PACKAGE)
        self.version = installed_version("denoising-diffusion-pytorch")

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (Setting("linear", 1000),)

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """What `p_losses` shows to the network, and the noise that its target then is."""
        return _shown(setting, x0, self.index(t), seed, immiscible=True)


class OffsetNoise(DenoisingDiffusion):
    """`offset_noise_strength > 0`: `p_losses` adds to the caller's noise in place.

    The strength is so small (2e-14) that no value that a law compares is moved beyond its tolerance: what is left to see is that the
    argument has changed.
    """

    name = "denoising-diffusion-pytorch: offset_noise_strength > 0"

    def __init__(self) -> None:
        super().__init__()
        self.conventions = ()

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (Setting("linear", 1000),)

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
        if (parameterization, weighting) != ("eps", "simple"):
            raise NotOffered("shown for eps and simple")
        chain = _answering(setting, "pred_noise", _image(prediction))
        value: Tensor = chain.p_losses(
            _image(x0),
            self.index(t),
            noise=_image(eps),
            offset_noise_strength=2e-14,
            loss_reduction="none",
        )
        return value


class Learned(Implementation):
    """`LearnedGaussianDiffusion`: a learned variance between β̃ and β, and the hybrid loss."""

    name = "denoising-diffusion-pytorch: LearnedGaussianDiffusion"
    first_index = 0
    table_dtype = torch.float32

    def __init__(self) -> None:
        importlib.import_module(_PACKAGE)
        self.version = installed_version("denoising-diffusion-pytorch")

    def settings(self) -> Sequence[Setting]:
        """One is enough."""
        return (Setting("linear", 1000),)

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`model_predictions`, as its DDIM sampler calls it."""
        if source != "eps" or to != "x0":
            raise NotOffered("shown for eps to x0")
        both = torch.cat([prediction, torch.zeros_like(prediction)], dim=1)
        found = _learned(setting, both).model_predictions(x_t, self.index(t))
        converted: Tensor = found.pred_x_start
        return converted

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """`p_mean_variance` where the network answers an end of the range: −1 is β̃, +1 is β."""
        x = torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)
        end = torch.full_like(x, -1.0 if variance == "posterior" else 1.0)
        chain = _learned(setting, torch.cat([x, end], dim=1))
        _, values, logarithms, _ = chain.p_mean_variance(x=x, t=self.index(t), clip_denoised=False)
        return values.flatten(), logarithms.flatten()

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """The lower end of the learned range, which is the scale of its decoder at t = 1 and the q of its KL after it."""
        mean = _diffusion(setting, "pred_noise", torch.float64).q_posterior(x0, x_t, self.index(t))[
            0
        ]
        _, lower = self.reverse_variance(setting, "posterior", t)
        return Posterior(mean, log_variance=column(lower, x_t))

    def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
        """`simple_losses + vb_losses * vb_loss_weight`, the factor read off `p_losses` itself."""
        return simple + _hybrid_factor(setting) * bound_term


def implementations() -> tuple[Implementation, ...]:
    """The library, then five of its options."""
    return DenoisingDiffusion(), ShortLinear(), Immiscible(), OffsetNoise(), Learned()


def _module() -> ModuleType:
    return importlib.import_module(f"{_PACKAGE}.denoising_diffusion_pytorch")


def _learned_module() -> ModuleType:
    return importlib.import_module(f"{_PACKAGE}.learned_gaussian_diffusion")


def _options(setting: Setting, objective: str) -> dict[str, Any]:
    """Constructor arguments for a setting that the library has."""
    plain = (setting.beta, setting.log_snr, setting.timesteps) == (None, None, None)
    if (
        setting.name not in ("linear", "cosine", "sigmoid")
        or setting.zero_terminal_snr
        or not plain
    ):
        raise NotOffered(f"denoising-diffusion-pytorch has no schedule {setting}")
    return {
        "image_size": _IMAGE_SIZE,
        "timesteps": setting.T,
        "beta_schedule": setting.name,
        "objective": objective,
        "auto_normalize": False,
    }


@lru_cache(maxsize=64)
def _diffusion(
    setting: Setting, objective: str, dtype: torch.dtype, *, min_snr: bool = False
) -> Any:
    """A `GaussianDiffusion` around a stub; with tables in float64 where samples are float64."""
    options = {**_options(setting, objective), "min_snr_loss_weight": min_snr}
    if dtype == torch.float64:
        with float64_tables(_module()):
            return _unclipped()(Recorder(), **options)
    return _unclipped()(Recorder(), **options)


@lru_cache(maxsize=1)
def _unclipped() -> type[Any]:
    """`GaussianDiffusion` whose samplers do not clip x_0: the two arguments that they hard-code are overridden."""
    base: type[Any] = _module().GaussianDiffusion

    def p_mean_variance(
        self: Any, x: Tensor, t: Tensor, x_self_cond: object = None, clip_denoised: bool = False
    ) -> Any:
        return base.p_mean_variance(self, x, t, x_self_cond, clip_denoised=False)

    def model_predictions(
        self: Any,
        x: Tensor,
        t: Tensor,
        x_self_cond: object = None,
        clip_x_start: bool = False,
        rederive_pred_noise: bool = False,
    ) -> Any:
        return base.model_predictions(self, x, t, x_self_cond)

    methods = {"p_mean_variance": p_mean_variance, "model_predictions": model_predictions}
    # The constructor asks for `type(self) == GaussianDiffusion` in one assertion only; a subclass passes it.
    return type("Unclipped", (base,), methods)


def _answering(setting: Setting, objective: str, answer: Any, *, min_snr: bool = False) -> Any:
    """The chain of `_diffusion`, whose stub now answers `answer`."""
    dtype = answer.dtype if isinstance(answer, Tensor) else torch.float64
    chain = _diffusion(setting, objective, dtype, min_snr=min_snr)
    chain.model = Recorder(answer)
    return chain


def _learned(setting: Setting, answer: Tensor) -> Any:
    """A `LearnedGaussianDiffusion` with float64 tables, whose network answers prediction and variance."""
    stub = Recorder(answer)
    stub.out_dim = 2
    with float64_tables(_module()):
        return _learned_module().LearnedGaussianDiffusion(stub, **_options(setting, "pred_noise"))


def _image(x: Tensor) -> Tensor:
    """`[B, *dims]` as the four axes that `p_losses` unpacks; a view, so that a change in place is seen."""
    return x.reshape(len(x), 1, 1, -1)


def _silent(iterable: Any, **options: object) -> Any:
    """In the place of tqdm."""
    return iterable


def _ancestral(
    setting: Setting, objective: str, prediction: Tensor, x_t: Tensor, noise: Tensor, index: int
) -> Tensor:
    """One `p_sample` whose draw of noise is the given one."""
    chain = _answering(setting, objective, prediction)
    with given_noise(_module(), noise):
        stepped: Tensor = chain.p_sample(x_t, index)[0]
    return stepped.clone()


def _shown(
    setting: Setting, x0: Tensor, index: Tensor, seed: int, *, immiscible: bool = False
) -> tuple[Tensor, Tensor]:
    """(x_t that `p_losses` shows to the network, the noise that is its target)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0.dtype)
    chain = _answering(setting, "pred_noise", torch.zeros_like(_image(x0)))
    stub = chain.model
    with replaced(chain, "immiscible", immiscible):
        chain.p_losses(_image(x0), index, noise=_image(noise))
    x_t: Tensor = stub.seen[-1]
    return x_t.reshape(x0.shape), noise


def _hybrid_factor(setting: Setting) -> float:
    """d(total loss)/d(bound term in nats per dimension): two calls of `p_losses` with and without its weight.

    The library measures the term in bits (its `NAT`), so that its factor is 1/ln 2 of λ; here it is put back into nats, and what
    remains is λ as the library has it, to be compared with λ T.
    """
    x0 = torch.tensor([[[[0.5]]]], dtype=torch.float64)
    step, noise = torch.tensor([500]), torch.ones_like(x0)
    chain = _learned(setting, torch.zeros(1, 2, 1, 1, dtype=torch.float64))
    with_bound = chain.p_losses(x0, step, noise=noise)
    with replaced(chain, "vb_loss_weight", 0.0):
        without = chain.p_losses(x0, step, noise=noise)
    bits = _bound_in_bits(chain, x0, step, noise)
    return float((with_bound - without) / bits) if bits else log(2)


def _bound_in_bits(chain: Any, x0: Tensor, step: Tensor, noise: Tensor) -> float:
    """The KL that `p_losses` adds, from the library's own pieces."""
    x_t = chain.q_sample(x_start=x0, t=step, noise=noise)
    true_mean, _, true_log_variance = chain.q_posterior(x_start=x0, x_t=x_t, t=step)
    mean, _, log_variance, _ = chain.p_mean_variance(x=x_t, t=step, clip_denoised=False)
    kl = _learned_module().normal_kl(true_mean, true_log_variance, mean, log_variance)
    return float(kl.mean() / log(2))
