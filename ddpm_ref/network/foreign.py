"""Networks from elsewhere: a diffusers `UNet2DModel`, and whatever a user's file makes.

`network = "PATH/my_net.py:make"` **runs the code in that file**, as `python PATH/my_net.py` would: name only files that you trust. What it
makes is called as `network(x_t, t)` like every other network. Its weights are those that PyTorch's initializers draw under the generator
seeded with the run's seed, so that they depend on the version of torch.
"""

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class DiffusersUNet(nn.Module):
    """`diffusers.UNet2DModel` as a network of this project: t = 1 … T is its timestep 0 … T−1, and its `.sample` is the prediction.

    Args:
        channels: C of the images.
        shape: (C, H, W) of the images.
        block_out_channels: feature maps of each level.
        layers_per_block: residual blocks per level.
        down_block_types: diffusers' names; None = `DownBlock2D` everywhere.
        up_block_types: diffusers' names; None = `UpBlock2D` everywhere.
        norm_num_groups: groups of each normalization.
        attention_head_dim: channels of an attention head.
        steps: T; the network embeds any number.
        outputs: channels of the output; None = `channels`.

    Raises:
        ModuleNotFoundError: diffusers is not installed.
    """

    def __init__(
        self,
        channels: int = 3,
        shape: Sequence[int] | None = None,
        block_out_channels: Sequence[int] = (64, 128),
        layers_per_block: int = 2,
        down_block_types: Sequence[str] | None = None,
        up_block_types: Sequence[str] | None = None,
        norm_num_groups: int = 32,
        attention_head_dim: int = 8,
        steps: int = 1000,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        diffusers: Any = importlib.import_module("diffusers")
        del steps
        levels = len(block_out_channels)
        self.inner = diffusers.UNet2DModel(
            sample_size=tuple(shape[1:]) if shape and len(shape) == 3 else None,
            in_channels=channels,
            out_channels=outputs or channels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            down_block_types=tuple(down_block_types or ("DownBlock2D",) * levels),
            up_block_types=tuple(up_block_types or ("UpBlock2D",) * levels),
            norm_num_groups=norm_num_groups,
            attention_head_dim=attention_head_dim,
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, C, H, W]` at the steps `t` `[B]` (1 … T)."""
        prediction: Tensor = self.inner(x_t, t - 1).sample
        return prediction


def is_file_factory(name: str) -> bool:
    """Whether a network's name is `FILE.py:FACTORY`."""
    file, separator, factory = name.rpartition(":")
    return bool(separator) and file.endswith(".py") and factory.isidentifier()


def file_factory(name: str) -> Callable[..., nn.Module]:
    """The function that `FILE.py:FACTORY` names; runs the file.

    Raises:
        ValueError: there is no such file, or it has no function of that name.
    """
    file, _, factory = name.rpartition(":")
    path = Path(os.path.expanduser(file))
    if not os.path.isfile(path):
        raise ValueError(
            f"network = {name!r}: there is no file {file!r}; write PATH/FILE.py:FACTORY"
        )
    digest = sha256(path.read_bytes()).hexdigest()
    spec = importlib.util.spec_from_file_location(f"ddpm_ref_network_{digest[:16]}", path)
    assert spec is not None  # a .py file has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Any = getattr(module, factory, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ValueError(
            f"network = {name!r}: {path.name} has no function {factory!r}; it has {', '.join(known) or 'none'}"
        )
    return found  # type: ignore[no-any-return]  # called and checked by `built`


def built(
    make: Callable[..., nn.Module], supplied: Mapping[str, object], options: Mapping[str, object]
) -> nn.Module:
    """What a constructor makes of the options and of those supplied values that it has arguments for.

    Raises:
        TypeError: what it made is not a module.
    """
    wanted = inspect.signature(make).parameters
    network = make(**{k: v for k, v in supplied.items() if k in wanted}, **options)
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"the network's factory returned a {type(network).__name__}; a torch.nn.Module is expected"
        )
    return network


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """`make()` under PyTorch's CPU generator seeded with `seed`, which is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
