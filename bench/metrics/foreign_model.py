"""Somebody else's model, brought to our conventions: t = 1 … T, one tensor out (or a pair), a float64 schedule.

`FILE.py:FACTORY` names a function without arguments. It returns one of

    model                     called as model(x_t, t); schedule and prediction come from the command line
    (model, schedule)         a `ddpm_ref.Schedule`
    (model, scheduler)        a diffusers scheduler: its betas, `prediction_type` and `variance_type` are read
    Foreign(...)              everything said explicitly

A model may return a tensor, or an object with `.sample` as diffusers' models do. With `variance="learned_range"` it returns twice
the channels, and the second half v ∈ [−1, 1] interpolates the log-variance (Nichol & Dhariwal 2021, eq. 15),

    ln σ_t² = (1+v)/2 · ln β_t + (1−v)/2 · ln β̃_t,        with ln β̃_2 in place of ln β̃_1 = −∞ at t = 1,              (1)

as in their code. (diffusers floors β̃_1 at 1e-20 instead, which makes the floor the lower end of the range.)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.terminal.usage import UsageError, in_words, readable_file
from ddpm_ref.conformance.adapters.from_file import imported
from ddpm_ref.reverse import Model, check_model
from ddpm_ref.schedule import (
    Schedule,
    check_schedule,
    schedule_from_beta,
    schedule_from_log_snr,
)
from ddpm_ref.validation import check_count

_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "beta",
    "fixed_large_log": "beta",
    "learned_range": "learned_range",
}


@dataclass(frozen=True, eq=False)
class Foreign:
    """A model with its conventions.

    Attributes:
        model: `model(x_t, step)`; a tensor, or an object with `.sample`.
        schedule: the steps that it was trained on; None = from the command line.
        parameterization: `eps`, `x0`, `v`, `score` or `mean`; None = from the command line.
        variance: `posterior`, `beta` or `learned_range`; None = from the command line.
        first_step: what the model calls our t = 1: 1, or 0 in most other libraries.

    Raises:
        TypeError: the model cannot be called, the schedule is none, or first_step is not a whole number.
    """

    model: Any
    schedule: Schedule | None = None
    parameterization: str | None = None
    variance: str | None = None
    first_step: int = 1

    def __post_init__(self) -> None:
        check_model(self.model)
        if self.schedule is not None:
            check_schedule(self.schedule)
        check_count("first_step", self.first_step, least=0)


class Adapted(nn.Module):
    """A foreign model that takes t = 1 … T and returns a tensor, or the pair (prediction, log-variance).

    A module, so that evaluation mode reaches the model inside.
    """

    def __init__(self, foreign: Foreign, schedule: Schedule, *, learned_range: bool) -> None:
        super().__init__()
        self.model = foreign.model
        self.offset = foreign.first_step - 1
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
            UsageError: the model raised; the message has its line.
        """
        try:
            output = self.model(x_t, t + self.offset)
        except (Exception, SystemExit) as error:  # theirs: its type, text and line are what helps
            raise UsageError(
                f"the model, called with x_t {list(x_t.shape)} and {len(t)} steps from {self.offset + 1}, "
                f"raised {in_words(error)}"
            ) from error
        output = getattr(output, "sample", output)
        if not self.learned_range:
            return output  # type: ignore[no-any-return]
        expected = (x_t.shape[0], 2 * x_t.shape[1], *x_t.shape[2:])
        if not isinstance(output, Tensor) or output.shape != expected:
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


def load_foreign(spec: str) -> Foreign:
    """What the factory in `FILE.py:FACTORY` returns, as a `Foreign`.

    Raises:
        UsageError: no such file or function, one of them raises, or it returns something else than the module's docstring lists.
    """
    path, separator, name = spec.rpartition(":")
    if not separator or not path:
        raise UsageError(f"--model {spec!r}: write FILE.py:FACTORY, a file and a function in it")
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
    except (Exception, SystemExit) as error:
        raise UsageError(f"--model {spec!r}: {what}: {in_words(error)}") from error


def _made_there(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def interpret(returned: Any) -> Foreign:
    """A factory's result as a `Foreign`."""
    if isinstance(returned, Foreign):
        return returned
    if isinstance(returned, tuple) and len(returned) == 2:
        model, second = returned
        if isinstance(second, Schedule):
            return Foreign(model, second)
        if hasattr(second, "betas") and hasattr(second, "config"):
            return _from_diffusers(model, second)
    elif callable(returned):
        return Foreign(returned)
    raise UsageError(
        f"the factory returned {type(returned).__name__}; return a model, (model, Schedule), "
        "(model, diffusers scheduler) or bench.metrics.foreign_model.Foreign"
    )


def _from_diffusers(model: Any, scheduler: Any) -> Foreign:
    """Schedule and conventions from a diffusers scheduler; its index 0 is our t = 1."""
    config: Mapping[str, Any] = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    variance = config.get("variance_type") or "fixed_small"
    for kind, value, known in (
        ("prediction_type", prediction, _PREDICTIONS),
        ("variance_type", variance, _VARIANCES),
    ):
        if value not in known:
            raise UsageError(
                f"{kind} {value!r} of the scheduler has no bound here; known: {', '.join(known)}"
            )
    return Foreign(
        model=model,
        schedule=_schedule_of(torch.as_tensor(scheduler.betas).double()),
        parameterization=_PREDICTIONS[prediction],
        variance=_VARIANCES[variance],
        first_step=0,
    )


def _schedule_of(beta: Tensor) -> Schedule:
    """A schedule from β_1 … β_T, also where β_T = 1 (zero terminal SNR)."""
    if beta[-1] < 1:
        return schedule_from_beta(beta)
    kept = (1 - beta[:-1]).log().cumsum(0)
    log_snr = kept - (-torch.expm1(kept)).log()
    return schedule_from_log_snr([*log_snr.tolist(), -torch.inf])


def adapt(foreign: Foreign, schedule: Schedule, variance: str) -> Model:
    """The foreign model as a model of ours; `variance` is the final choice."""
    return Adapted(foreign, schedule, learned_range=variance == "learned_range")
