r"""What the adapters use to look inside a library without changing it.

* **A recording network** takes the place of the model: it keeps what it was shown and answers what it was told to. That is how a
  target, or an x_t that a loss makes internally, becomes visible.
* **Float64 tables.** Several libraries compute their schedule in float32. What the laws find wrong with such a table in float64
  arithmetic may be the rounding of the table and not the formula. While `float64_tables(module)` is active the *library's own* code
  computes the same tables with "float32" read as float64; what still fails then is the formula. Float64 inputs are therefore
  given to the library with such tables, float32 and lower inputs to the library as it is installed.
* **Given noise.** A step that draws its own noise cannot be compared with a number: `replaced(module, name, value)` hands it the
  law's noise instead of its own draw.

All of them act for the length of a `with` block and restore what they found.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def installed_version(distribution: str) -> str:
    """The installed version; "unknown" for a bare checkout on the path."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


class Recorder(nn.Module):
    """A network that answers `answer` to whatever it is shown and keeps its input in `seen`.

    It has the attributes that the libraries ask a model for, and no parameters.
    """

    channels = 1
    out_dim = 1
    self_condition = False
    input_dims = (1,)

    def __init__(self, answer: Tensor | Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, *unused: object, **options: object) -> Tensor:
        """Keep x; answer the tensor that was given, what a function makes of the input, or zeros."""
        self.seen.append(x)
        if self.answer is None:
            return torch.zeros_like(x)
        if callable(self.answer):
            return self.answer(x, *unused)
        return self.answer


class _WideTorch:
    """The module `torch`, in which the word float32 means float64."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, "float64" if name == "float32" else name)


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """`owner.name` is `value` inside the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def float64_tables(module: ModuleType) -> Iterator[None]:
    """Inside the block the library module computes in float64 what it would compute in float32."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with replaced(module, "torch", _WideTorch()):
            yield
    finally:
        torch.set_default_dtype(default)


class _NoiseTorch:
    """The module `torch`, whose `randn_like` gives a noise that was chosen before."""

    def __init__(self, noise: Tensor) -> None:
        self._noise = noise

    def randn_like(self, like: Tensor) -> Tensor:
        return self._noise.to(like.dtype).reshape(like.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def given_noise(module: ModuleType, noise: Tensor) -> Iterator[None]:
    """Inside the block the module's `torch.randn_like` returns `noise`."""
    with replaced(module, "torch", _NoiseTorch(noise)):
        yield


def each_step(t: Tensor, function: Callable[[int, slice], Tensor]) -> Tensor:
    """For libraries whose step takes one time: call `function(t_i, slice of sample i)` for each sample and join."""
    return torch.cat([function(step, slice(i, i + 1)) for i, step in enumerate(t.tolist())])


def column(values: Tensor, like: Tensor) -> Tensor:
    """`[B]` viewed as `[B, 1, …]`, so that it multiplies samples of `like`'s rank."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
