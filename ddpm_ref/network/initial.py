"""Initial weights from the stream: they depend on the seed and on the network's structure, not on the version of torch."""

import math

import torch
from torch import Tensor, nn

from ddpm_ref.network.layers import ZeroConv2d, ZeroLinear
from ddpm_ref.network.output import LearnedSkip
from ddpm_ref.network.vector import LowRank
from ddpm_ref.noise import NoiseStream, Use


def initialize(network: nn.Module, stream: NoiseStream) -> None:
    """Draw all weights anew: W ~ N(0, 1/fan_in), biases 0, norms 1 and 0, `ZeroConv2d`, `ZeroLinear` and skips 0.

    The k-th parameter takes the sample index k of `Use.WEIGHTS`, so that the draw depends on the seed and on the
    network's structure only. The fan-in of a weight `[out, in, *kernel]` is in · ∏ kernel.

    Raises:
        TypeError: a layer of another kind: its law of initialization would be a guess.
    """
    index = 0
    for module in network.modules():
        own = dict(module.named_parameters(recurse=False))
        for name, parameter in own.items():
            with torch.no_grad():
                parameter.copy_(_initial(module, name, parameter, stream, index))
            index += 1


def _initial(
    module: nn.Module, name: str, parameter: Tensor, stream: NoiseStream, index: int
) -> Tensor:
    if isinstance(module, nn.GroupNorm):
        return torch.full_like(parameter, 1.0 if name == "weight" else 0.0)
    if isinstance(module, LearnedSkip):
        return torch.zeros_like(parameter)
    if isinstance(module, LowRank):
        if name != "read":
            return torch.zeros_like(parameter)
        return _normal(parameter, stream, index) / math.sqrt(parameter.shape[1])
    if not isinstance(module, nn.Conv2d | nn.Linear):
        raise TypeError(
            f"no law of initialization for {type(module).__name__}.{name}: build the network from Conv2d, "
            "Linear and GroupNorm, or initialize it yourself"
        )
    if name == "bias" or isinstance(module, ZeroConv2d | ZeroLinear):
        return torch.zeros_like(parameter)
    return _normal(parameter, stream, index) / math.sqrt(parameter[0].numel())


def _normal(parameter: Tensor, stream: NoiseStream, index: int) -> Tensor:
    return stream.normal((1, *parameter.shape), step=0, first_index=index, use=Use.WEIGHTS)[0]
