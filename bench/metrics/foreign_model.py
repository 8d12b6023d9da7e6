"""Somebody else's model, brought to our conventions: t = 1 … T, one tensor out (or a pair), a float64 schedule.

`FILE.py:FACTORY` names a function without arguments. It returns one of

    model                     called as model(x_t, t); schedule and prediction come from the command line
    (model, schedule)         a `ddpm_ref.Schedule`
    (model, scheduler)        a diffusers scheduler, read by `bench.metrics.diffusers_scheduler`
    pipeline                  a diffusers pipeline: its network and its scheduler
    Foreign(...)              everything said explicitly

`hf:FOLDER` names a saved diffusers model instead (`bench.metrics.diffusers_folder`). A model may return a tensor, or an object with
`.sample` as diffusers' models do; it is called in the dtype of its own weights. With `variance="learned_range"` it returns twice
the channels, and the second half v ∈ [−1, 1] interpolates the log-variance (Nichol & Dhariwal 2021, eq. 15),

    ln σ_t² = (1+v)/2 · ln β_t + (1−v)/2 · ln β̃_t,        with ln β̃_2 in place of ln β̃_1 = −∞ at t = 1,              (1)

as in their code. (diffusers floors β̃_1 at 1e-20 instead, which makes the floor the lower end of the range.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.metrics.diffusers_scheduler import has_betas, made_by_diffusers, read, without_betas
from bench.terminal.usage import UsageError, in_words, readable_file
from ddpm_ref.conformance.adapters.from_file import imported
from ddpm_ref.reverse import Model, check_model
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import check_count


@dataclass(frozen=True, eq=False)
class Foreign:
    """A model with its conventions.

    Attributes:
        model: `model(x_t, step)`; a tensor, or an object with `.sample`.
        schedule: the steps that it was trained on; None = from the command line.
        parameterization: `eps`, `x0`, `v`, `score` or `mean`; None = from the command line.
        variance: `posterior`, `beta` or `learned_range`; None = from the command line.
        first_step: what the model calls our t = 1: 1, or 0 in most other libraries; None = 0 for a model of diffusers, else 1.
        clip: clamp the predicted x_0 to [−clip, clip] as the model's own sampler does; None = never.
        said: what was read from a configuration, one sentence each.

    Raises:
        TypeError: the model cannot be called, the schedule is none, or first_step is not a whole number.
    """

    model: Any
    schedule: Schedule | None = None
    parameterization: str | None = None
    variance: str | None = None
    first_step: int | None = None
    clip: float | None = None
    said: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_model(self.model)
        if self.schedule is not None:
            check_schedule(self.schedule)
        if self.first_step is not None:
            check_count("first_step", self.first_step, least=0)

    @property
    def offset(self) -> int:
        """What is added to our t before the model is called."""
        first = self.first_step
        return (0 if made_by_diffusers(self.model) else 1) - 1 if first is None else first - 1


class InItsDtype(nn.Module):
    """A model called in the dtype of its own weights, whatever the data's: x_t stays as it was drawn, its copy is rounded.

    A module, so that evaluation mode reaches the model inside.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        weights = model.parameters() if isinstance(model, nn.Module) else ()
        self.dtype = next((w.dtype for w in weights if w.is_floating_point()), None)

    def forward(self, x_t: Tensor, t: Tensor) -> Any:
        """The model's output at step t."""
        return self.model(x_t if self.dtype is None else x_t.to(self.dtype), t)


class Adapted(nn.Module):
    """A foreign model that takes t = 1 … T and returns a tensor, or the pair (prediction, log-variance).

    A module, so that evaluation mode reaches the model inside.
    """

    def __init__(self, foreign: Foreign, schedule: Schedule, *, learned_range: bool) -> None:
        super().__init__()
        self.model = InItsDtype(foreign.model)
        self.offset = foreign.offset
        self.learned_range = learned_range
        upper, lower = schedule.beta.clone(), schedule.posterior_variance.clone()
        lower[1] = lower[2] if schedule.T > 1 else upper[1]
        position = torch.zeros(int(schedule.timesteps[-1]) + 1, dtype=torch.int64)
        position[schedule.timesteps] = torch.arange(1, schedule.T + 1)
        self.position = position
        self.ends = torch.stack([lower.log(), upper.log()])

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The model's output at our step t.

        Raises:
            UsageError: the model raised (the message has its line), or its channels contradict the variance.
        """
        try:
            output = self.model(x_t, t + self.offset)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # theirs: its type, text and line are what helps
            raise UsageError(
                f"the model, called with x_t {list(x_t.shape)} and {len(t)} steps from {self.offset + 1}, "
                f"raised {in_words(error)}"
            ) from error
        output = getattr(output, "sample", output)
        twice = (x_t.shape[0], 2 * x_t.shape[1], *x_t.shape[2:]) if x_t.ndim > 1 else ()
        if not self.learned_range:
            if isinstance(output, Tensor) and output.shape == twice:
                raise UsageError(_twice(x_t))
            return output  # type: ignore[no-any-return]
        if not isinstance(output, Tensor) or output.shape != twice:
            given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UsageError(
                f"with variance learned_range the model returns a tensor with twice the channels of x_t {list(x_t.shape)}, "
                f"not {given}: the prediction, then v; or choose --variance posterior"
            )
        prediction, share = output.chunk(2, dim=1)
        ends = self.ends[:, self.position[t.cpu()]].to(share.device)
        low, high = ends.view(2, -1, *(1,) * (x_t.ndim - 1))
        mix = (share.double() + 1) / 2
        return prediction, mix * high + (1 - mix) * low


def _twice(x_t: Tensor) -> str:
    """What to do about a second half: most models that have one mean v, not a log-variance."""
    return (
        f"the model returns twice the channels of x_t {list(x_t.shape)}: in improved-diffusion, guided-diffusion, DiT and diffusers the second "
        "half is v in [-1, 1] between two log-variances: pass --variance learned_range; to leave it unused, or where it is the log-variance "
        "itself, let the factory return a model with output[:, :C], or with the pair (prediction, log_variance)"
    )


def load_foreign(spec: str) -> Foreign:
    """What the factory in `FILE.py:FACTORY` returns, or the saved model in `hf:FOLDER`, as a `Foreign`.

    Raises:
        UsageError: no such file, function or folder, one of them raises, or it returns something else than the module's docstring lists.
    """
    if spec.startswith("hf:"):
        from bench.metrics.diffusers_folder import load_folder

        model, scheduler, said = load_folder(spec.removeprefix("hf:"))
        return _with_scheduler(model, scheduler, said)
    path, separator, name = spec.rpartition(":")
    if not separator or not path:
        raise UsageError(
            f"--model {spec!r}: write FILE.py:FACTORY, a file and a function in it, or hf:FOLDER, a saved diffusers model"
        )
    file = readable_file(path)
    if file.suffix != ".py":
        raise UsageError(f"--model {spec!r}: {path!r} is not a Python file; give FILE.py:FACTORY")
    with _theirs(spec, f"{file.name} cannot be imported"):
        module = imported(file)
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [n for n, value in vars(module).items() if _made_there(value, module)]
        has = (
            f"it has {', '.join(known)}" if known else "it has none: write one that returns a model"
        )
        raise UsageError(f"--model {spec!r}: no function {name!r} there; {has}")
    with _theirs(spec, f"{name}() in {file.name} raised"):
        returned = factory()
    return interpret(returned)


@contextmanager
def _theirs(spec: str, what: str) -> Iterator[None]:
    """Inside the block runs somebody else's code: what it raises is an error of use with its line."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"--model {spec!r}: {what}: {in_words(error)}") from error


def _made_there(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def interpret(returned: Any) -> Foreign:
    """A factory's result as a `Foreign`.

    Raises:
        UsageError: something else than the module's docstring lists, or a scheduler that no bound is read from.
    """
    if isinstance(returned, Foreign):
        return returned
    if isinstance(components := getattr(returned, "components", None), dict):
        from bench.metrics.diffusers_folder import parts_of

        return _with_scheduler(*parts_of(type(returned).__name__, components))
    if isinstance(returned, tuple) and len(returned) == 2:
        model, second = returned
        if isinstance(second, Schedule):
            return Foreign(model, second)
        if hasattr(second, "config"):
            return _with_scheduler(model, second)
    elif callable(returned):
        return Foreign(returned)
    raise UsageError(
        f"the factory returned {_kind(returned)}; return a model, (model, Schedule), (model, diffusers scheduler), "
        "a diffusers pipeline or bench.metrics.foreign_model.Foreign"
    )


def _kind(returned: Any) -> str:
    """The type's name, for a tuple with those inside it."""
    name = type(returned).__name__
    return (
        f"{name} of {', '.join(type(part).__name__ for part in returned)}"
        if isinstance(returned, tuple)
        else name
    )


def _with_scheduler(model: Any, scheduler: Any, said: tuple[str, ...] = ()) -> Foreign:
    """Schedule and conventions from a diffusers scheduler; its index 0 is our t = 1."""
    if not has_betas(scheduler):
        raise UsageError(without_betas(scheduler))
    found = read(scheduler)
    return Foreign(
        model=model,
        schedule=found.schedule,
        parameterization=found.parameterization,
        variance=found.variance,
        first_step=0,
        clip=found.clip,
        said=(*said, *found.said),
    )


def adapt(foreign: Foreign, schedule: Schedule, variance: str) -> Model:
    """The foreign model as a model of ours; `variance` is the final choice."""
    return Adapted(foreign, schedule, learned_range=variance == "learned_range")
