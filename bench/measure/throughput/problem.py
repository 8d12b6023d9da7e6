"""What is to be computed: one batch to be noised, the same for every contender."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bench.terminal.usage import UsageError
from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import Schedule, linear_schedule

STEPS = 1000
SEED = 20_201_119
_MOST_NUMBERS = 1 << 33

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
"""Name → dtype: benchmarks are parametrized by strings."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A batch at given steps of a schedule.

    Attributes:
        x0: data on [−1, 1], `[B, *dims]`.
        t: steps spread over 1 … T, int64 `[B]`.
        schedule: the linear schedule of Ho et al. 2020, T = 1000.
        stream: where our own providers draw from.
        noise: standard normal, like x0: for the ways that are given their noise.
        backend: what `torch.compile` uses: `eager` traces without generating code, where nothing is timed.
    """

    x0: Tensor
    t: Tensor
    schedule: Schedule
    stream: NoiseStream
    noise: Tensor
    backend: str = "inductor"

    @property
    def elements(self) -> int:
        """Elements of x0."""
        return self.x0.numel()

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.x0.device


def parse_shape(text: str) -> tuple[int, ...]:
    """`256x3x64x64` → (256, 3, 64, 64).

    Raises:
        UsageError: not positive whole numbers with x between them.
    """
    parts = text.split("x")
    if not all(part.isdecimal() and len(part) < 12 and int(part) > 0 for part in parts):
        raise UsageError(f"shape {text!r} is not like 256x3x64x64; give batch x channels x …")
    shape = tuple(int(part) for part in parts)
    if prod(shape) > _MOST_NUMBERS:
        raise UsageError(
            f"shape {text!r} has more than {_MOST_NUMBERS:,} numbers: give a smaller one"
        )
    return shape


def problem(
    shape: str, *, dtype: str = "float32", device: str = "cpu", backend: str = "inductor"
) -> Problem:
    """The batch of that shape: same name, same bits, on every device.

    Args:
        shape: such as `256x3x64x64`.
        dtype: a name in `DTYPES`.
        device: such as `cpu` or `cuda`.
        backend: of `torch.compile`.
    """
    sizes = parse_shape(shape)
    generator = torch.Generator().manual_seed(SEED + prod(sizes))
    x0 = torch.rand(sizes, generator=generator).mul_(2).sub_(1).to(device, DTYPES[dtype])
    noise = torch.randn(sizes, generator=generator).to(device, DTYPES[dtype])
    t = torch.randint(1, STEPS + 1, sizes[:1], generator=generator).to(device)
    return Problem(x0, t, linear_schedule(STEPS), NoiseStream(SEED), noise, backend)
