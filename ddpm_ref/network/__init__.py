r"""Denoising networks: x_t `[B, *dims]` and t `[B]` in, a prediction `[B, *dims]` out.

What the network predicts is not its own affair: the same network learns ε, x_0, v, the score or the mean
(`ddpm_ref.parameterization`). It has to know two things, the noisy image and how noisy it is. The posterior mean

    E[x_0 | x_t] = ∫ x_0 q(x_t | x_0) q(x_0) dx_0 / ∫ q(x_t | x_0) q(x_0) dx_0                       (1)

depends on t through q(x_t | x_0) = N(√ᾱ_t x_0, (1−ᾱ_t) I), even for the simplest data: for x_0 ~ N(0, s² I) it is

    E[x_0 | x_t] = √ᾱ_t s² / (ᾱ_t s² + 1−ᾱ_t) · x_t,                                                  (2)

a different multiple of x_t at every t. A network without t can only answer with an average over the steps that could
have produced x_t (`ArticleDenoiser` is one, and says what that costs). `UNet` receives t as a sinusoidal embedding,

    e(t)_i = sin(1000 t/T · 10000^{−2i/D}),   e(t)_{i+D/2} = cos(…),   i < D/2   (Vaswani et al. 2017, section 3.5),   (3)

added to the features of every residual block (Ho et al. 2020, appendix B).

The last convolution starts at zero, so that the first prediction is 0 for any parameterization and the first loss is
the mean square of the target. `initialize` draws all other weights from a `NoiseStream`: two runs that share a seed start from
the same bits, whatever the version of torch.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from ddpm_ref.network.article import ArticleDenoiser
from ddpm_ref.network.ddpm import SIZES, DDPMUNet
from ddpm_ref.network.foreign import DiffusersUNet
from ddpm_ref.network.initial import initialize
from ddpm_ref.network.layers import Attention, ResidualBlock, ZeroConv2d, ZeroLinear, time_embedding
from ddpm_ref.network.output import SKIPS, LearnedRange, LearnedSkip, Preconditioned
from ddpm_ref.network.unet import UNet
from ddpm_ref.network.vector import MLP, LowRank

__all__ = [
    "FOREIGN",
    "MLP",
    "NETWORKS",
    "SIZES",
    "SKIPS",
    "ArticleDenoiser",
    "Attention",
    "DDPMUNet",
    "DiffusersUNet",
    "LearnedRange",
    "LearnedSkip",
    "LowRank",
    "Preconditioned",
    "ResidualBlock",
    "UNet",
    "ZeroConv2d",
    "ZeroLinear",
    "initialize",
    "time_embedding",
]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "article": ArticleDenoiser,
    "mlp": MLP,
    "low-rank": LowRank,
    **{f"ddpm-{name}": partial(DDPMUNet, **size) for name, size in SIZES.items()},
}
"""Networks by name, with weights from the stream; every one takes `channels`, `steps` and `outputs` and has options of its own."""

FOREIGN: dict[str, Callable[..., nn.Module]] = {"diffusers": DiffusersUNet}
"""Networks of other libraries by name, with weights from PyTorch's initializers."""
