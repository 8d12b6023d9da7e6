"""Ways to noise a batch: ours, plain torch, and the peers, all behind one call.

A contender is built for one problem and then called with a step number; it answers the pair (x_t, ε). Two tables:

    NOISING    draws ε and forms x_t: what a training step does
    FORMING    forms x_t from a given ε, which it returns unchanged

Ours draw from `NoiseStream`, so that a step's noise can be replayed; the others draw from torch's generator, as their users
do, and ignore the step number. Tables and modules of the peers are made once, outside the timed call, as in a training loop.

`accesses` counts tensors read or written per call, in units of one batch; eager arithmetic moves 8 to draw and form:
ε written; x_0 read, product written; ε read, product written; both read, sum written.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.measure.throughput.problem import STEPS, Problem
from ddpm_ref.kernels import fused_q_sample, q_sample, q_sample_providers

Pair = tuple[Tensor, Tensor]
Call = Callable[[int], Pair]
Origin = Literal["own", "torch", "peer"]

NECESSARY_ACCESSES = 3
"""x_0 read, x_t and ε written (or ε read instead): what no way can avoid."""


@dataclass(frozen=True)
class Contender:
    """One way to do it.

    Attributes:
        name: unique in its table, as in the report.
        origin: own, plain torch, or another library.
        build: problem → the call that is timed.
        accesses: tensors read or written per call; None where it was not counted.
        compiled: whether the first call compiles.
        package: what must be installed.
        provider: the provider of `fused_q_sample` behind it, "" for none.
        in_place: it writes into outputs that were made once, which a later call overwrites.
    """

    name: str
    origin: Origin
    build: Callable[[Problem], Call]
    accesses: int | None
    compiled: bool = False
    package: str = ""
    provider: str = ""
    in_place: bool = False

    def unavailable(self, device: torch.device) -> str | None:
        """Why it cannot run here on that device; None where it can."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.provider in _HOME and _HOME[self.provider] != device.type:
            return f"the {self.provider} provider works on {_HOME[self.provider]} tensors only"
        return q_sample_providers()[self.provider] if self.provider else None


_HOME = {"native": "cpu", "cuda": "cuda"}


def _own(provider: str) -> Callable[[Problem], Call]:
    def build(p: Problem) -> Call:
        def call(step: int) -> Pair:
            return fused_q_sample(p.x0, p.t, p.schedule, p.stream, step=step, provider=provider)

        return call

    return build


def _own_in_place(provider: str) -> Callable[[Problem], Call]:
    def build(p: Problem) -> Call:
        out = torch.empty_like(p.x0), torch.empty_like(p.x0)

        def call(step: int) -> Pair:
            return fused_q_sample(
                p.x0, p.t, p.schedule, p.stream, step=step, provider=provider, out=out
            )

        return call

    return build


def _textbook_in_place(p: Problem) -> Call:
    """The fewest passes that torch has for it without a compiler: draw, multiply, multiply and add."""
    view = (-1, *[1] * (p.x0.ndim - 1))
    signal = p.schedule.sqrt_alpha_bar.to(p.device, p.x0.dtype)
    added = p.schedule.sqrt_one_minus_alpha_bar.to(p.device, p.x0.dtype)
    x_t, noise = torch.empty_like(p.x0), torch.empty_like(p.x0)

    def call(step: int) -> Pair:
        noise.normal_()
        torch.mul(signal[p.t].view(view), p.x0, out=x_t)
        return x_t.addcmul_(added[p.t].view(view), noise), noise

    return call


def _compiled_in_place(p: Problem) -> Call:
    """torch.compile of the affine map into memory that is there; the noise by torch, in place."""
    form = _textbook_form(p)
    x_t, noise = torch.empty_like(p.x0), torch.empty_like(p.x0)

    def into(x0: Tensor, t: Tensor, noise: Tensor, x_t: Tensor) -> None:
        x_t.copy_(form(x0, t, noise))

    compiled = torch.compile(into, fullgraph=True, dynamic=False, backend=p.backend)

    def call(step: int) -> Pair:
        noise.normal_()
        compiled(p.x0, p.t, noise, x_t)
        return x_t, noise

    return call


def _definition_given_noise(p: Problem) -> Call:
    return lambda step: (q_sample(p.x0, p.t, p.schedule, p.noise), p.noise)


def _eager(p: Problem) -> Call:
    def call(step: int) -> Pair:
        noise = torch.randn_like(p.x0)
        return q_sample(p.x0, p.t, p.schedule, noise), noise

    return call


def _textbook_form(p: Problem) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What tutorials write: tables in the data's dtype, indexed and viewed per call."""
    view = (-1, *[1] * (p.x0.ndim - 1))
    signal = p.schedule.sqrt_alpha_bar.to(p.device, p.x0.dtype)
    added = p.schedule.sqrt_one_minus_alpha_bar.to(p.device, p.x0.dtype)

    def form(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return signal[t].view(view) * x0 + added[t].view(view) * noise

    return form


def _textbook(p: Problem) -> Call:
    form = _textbook_form(p)

    def call(step: int) -> Pair:
        noise = torch.randn_like(p.x0)
        return form(p.x0, p.t, noise), noise

    return call


def _textbook_given_noise(p: Problem) -> Call:
    form = _textbook_form(p)
    return lambda step: (form(p.x0, p.t, p.noise), p.noise)


def _compiled_form(p: Problem) -> Any:
    return torch.compile(_textbook_form(p), fullgraph=True, dynamic=False, backend=p.backend)


def _compiled_form_eager_noise(p: Problem) -> Call:
    form = _compiled_form(p)

    def call(step: int) -> Pair:
        noise = torch.randn_like(p.x0)
        return form(p.x0, p.t, noise), noise

    return call


def _compiled_given_noise(p: Problem) -> Call:
    form = _compiled_form(p)
    return lambda step: (form(p.x0, p.t, p.noise), p.noise)


def _compiled_with_noise(p: Problem) -> Call:
    """The naive way: `randn_like` inside the compiled graph."""
    form = _textbook_form(p)

    def draw_and_form(x0: Tensor, t: Tensor) -> Pair:
        noise = torch.randn_like(x0)
        return form(x0, t, noise), noise

    compiled = torch.compile(draw_and_form, fullgraph=True, dynamic=False, backend=p.backend)
    return lambda step: compiled(p.x0, p.t)


def _diffusers_form(p: Problem) -> Callable[[Tensor], Tensor]:
    diffusers: Any = importlib.import_module("diffusers")
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=STEPS, beta_schedule="linear", beta_start=1e-4, beta_end=0.02
    )
    index = p.t - 1  # its index 0 is our t = 1

    def form(noise: Tensor) -> Tensor:
        x_t: Tensor = scheduler.add_noise(p.x0, noise, index)
        return x_t

    return form


def _ddp_form(p: Problem) -> Callable[[Tensor], Tensor]:
    library: Any = importlib.import_module("denoising_diffusion_pytorch")
    diffusion = library.GaussianDiffusion(
        _ModelStub(),
        image_size=p.x0.shape[-1],
        timesteps=STEPS,
        beta_schedule="linear",
        objective="pred_noise",
    ).to(p.device)
    index = p.t - 1  # its index 0 is our t = 1

    def form(noise: Tensor) -> Tensor:
        x_t: Tensor = diffusion.q_sample(p.x0, index, noise)
        return x_t

    return form


class _ModelStub(torch.nn.Module):
    """What `GaussianDiffusion` asks of a model; q_sample never calls it."""

    channels = out_dim = 3
    self_condition = False


def _drawing(form: Callable[[Problem], Callable[[Tensor], Tensor]]) -> Callable[[Problem], Call]:
    def build(p: Problem) -> Call:
        formed = form(p)

        def call(step: int) -> Pair:
            noise = torch.randn_like(p.x0)
            return formed(noise), noise

        return call

    return build


def _given(form: Callable[[Problem], Callable[[Tensor], Tensor]]) -> Callable[[Problem], Call]:
    def build(p: Problem) -> Call:
        formed = form(p)
        return lambda step: (formed(p.noise), p.noise)

    return build


NATIVE_OUT = "native, out given"
_DDP = "denoising-diffusion-pytorch"
_DDP_MODULE = "denoising_diffusion_pytorch"

NOISING: dict[str, Contender] = {
    c.name: c
    for c in (
        Contender("native", "own", _own("native"), 3, provider="native"),
        Contender("cuda", "own", _own("cuda"), 3, provider="cuda"),
        Contender(NATIVE_OUT, "own", _own_in_place("native"), 3, provider="native", in_place=True),
        Contender("compiled", "own", _own("compiled"), 4, compiled=True, provider="compiled"),
        Contender("eager definition", "own", _own("eager"), None, provider="eager"),
        Contender("torch eager", "torch", _eager, 8),
        Contender("torch textbook", "torch", _textbook, 8),
        Contender("torch textbook, out given", "torch", _textbook_in_place, 6, in_place=True),
        Contender(
            "torch normal_ + compile, out given",
            "torch",
            _compiled_in_place,
            4,
            compiled=True,
            in_place=True,
        ),
        Contender("torch randn + compile", "torch", _compiled_form_eager_noise, 4, compiled=True),
        Contender("torch compile all", "torch", _compiled_with_noise, 3, compiled=True),
        Contender("diffusers", "peer", _drawing(_diffusers_form), 8, package="diffusers"),
        Contender(_DDP, "peer", _drawing(_ddp_form), 8, package=_DDP_MODULE),
    )
}
"""Name → contender: draw ε and form x_t."""

FORMING: dict[str, Contender] = {
    c.name: c
    for c in (
        Contender("q_sample", "own", _definition_given_noise, 7),
        Contender("torch textbook", "torch", _textbook_given_noise, 7),
        Contender("torch compile", "torch", _compiled_given_noise, 3, compiled=True),
        Contender("diffusers", "peer", _given(_diffusers_form), 7, package="diffusers"),
        Contender(_DDP, "peer", _given(_ddp_form), 7, package=_DDP_MODULE),
    )
}
"""Name → contender: form x_t from a given ε."""
