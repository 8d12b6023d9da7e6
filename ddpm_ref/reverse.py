r"""The chain that a model runs backwards: p(x_{t−1} | x_t), and one noise draw of its term of the bound.

    p(x_{t−1} | x_t) = N(μ_θ(x_t, t), σ_t² I),           t = T … 1,        p(x_T) = N(0, I).                  (1)

A model predicts something (`parameterization`), which `convert` turns into the mean μ_θ; the variance σ_t² is a choice: β̃_t is
right for data that are a point, β_t for data that are N(0, I) (Ho et al. 2020, section 3.2), and a table or the model itself can
supply anything else. β̃_1 = 0 is no variance for a decoder, and so both names use σ_1² = β_1 at t = 1.

The term of step t for given noise (with `elbo` eq. (3), (4)): the KL from the forward posterior, which is known given x_0,

    ½ Σ_d [β̃_t/σ_t² − 1 − ln β̃_t/σ_t² + (μ̃ − μ_θ)²/σ_t²],    t ≥ 2;         −ln p(x_0 | x_1),    t = 1.       (2)

**Decoder.** p(x_0 | x_1) is N(μ_θ(x_1, 1), σ_1²), either as a density (`gaussian`, continuous data) or as the mass of the grey level's
bin (`discretized`, Ho et al. eq. 13). At t = 1 the forward posterior is a point, so μ_θ(x_1, 1) is the predicted x_0.

**Precision.** x_t is formed in x_0's dtype, as the model saw it in training; every term is computed in float64 from that very x_t,
so that rounding x_t changes which noise was drawn, not the value of the term.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ddpm_ref.gaussian import (
    Gaussian,
    discretized_gaussian_log_likelihood,
    gaussian_kl,
    lattice_index,
)
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert
from ddpm_ref.process import q_posterior, q_sample
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import check_finite, check_floating, check_name, check_number, shown

Model: TypeAlias = Callable[[Tensor, Tensor], "Tensor | tuple[Tensor, Tensor]"]
"""`model(x_t [B, *dims], t int64 [B]) -> prediction [B, *dims]`, or the pair `(prediction, log_variance)`."""

Variance: TypeAlias = "str | Tensor | Sequence[float]"
"""`"posterior"` (β̃_t), `"beta"` (β_t), or a `[T+1]` table whose entry 1 is the decoder's variance."""

_DECODERS = ("discretized", "gaussian")
VARIANCES = ("posterior", "beta")


@dataclass(frozen=True)
class Protocol:
    """How a bound was evaluated: two numbers are comparable only where these agree.

    Attributes:
        T: number of steps summed over.
        parameterization: what the model predicts.
        variance: `posterior`, `beta`, `table`, or `learned` (the model returned its own log-variance).
        decoder: `discretized` or `gaussian`.
        levels: grey levels of the discretized decoder's lattice, None for the Gaussian decoder.
        clip: predicted x_0 was clamped to [−clip, clip]; None = nothing was clipped.
        draws: noise draws per term and example.
        seed: of the `NoiseStream`.
    """

    T: int
    parameterization: str
    variance: str
    decoder: str
    levels: int | None
    clip: float | None
    draws: int
    seed: int

    def describe(self) -> str:
        """The protocol as one English sentence."""
        decoder = (
            f"discretized Gaussian decoder on {self.levels} grey levels of [-1, 1], exact normal CDF"
            if self.decoder == "discretized"
            else "Gaussian density as decoder (continuous data)"
        )
        clipping = (
            "nothing clipped"
            if self.clip is None
            else f"predicted x0 CLIPPED to [-{self.clip:g}, {self.clip:g}]"
        )
        return (
            f"variational bound over T = {self.T} steps; {decoder}; reverse variance: {self.variance}; "
            f"{clipping}; model predicts {self.parameterization}; "
            f"{self.draws} noise draw{'s' * (self.draws != 1)} per term, seed {self.seed}"
        )


@dataclass
class _Seen:
    """What only calling the model reveals."""

    learned: bool = False


@dataclass(frozen=True, eq=False)
class ReverseProcess:
    """The chain p(x_{t−1} | x_t) = N(μ_θ(x_t, t), σ_t² I) that a model, a variance and a decoder define.

    Attributes:
        model: `model(x_t, timesteps[t−1])` → prediction, or (prediction, log-variance).
        schedule: the steps of the chain.
        parameterization: what the model predicts.
        log_variance: ln σ_t², float64 `[T+1]`; overridden by a log-variance that the model returns.
        decoder: `discretized` or `gaussian`.
        levels: of the discretized decoder.
        clip: clamp the predicted x_0 to [−clip, clip], None = never.
        variance_name: for the protocol.
        seen: notes whether the model returned a log-variance.
    """

    model: Model
    schedule: Schedule
    parameterization: str
    log_variance: Tensor
    decoder: str
    levels: int | None
    clip: float | None
    variance_name: str
    seen: _Seen = field(default_factory=_Seen, repr=False)

    def protocol(self, *, draws: int, seed: int) -> Protocol:
        """What was done, for the result; ask after the evaluation, which shows whether the variance is learned."""
        return Protocol(
            T=self.schedule.T,
            parameterization=self.parameterization,
            variance="learned" if self.seen.learned else self.variance_name,
            decoder=self.decoder,
            levels=self.levels,
            clip=self.clip,
            draws=draws,
            seed=seed,
        )

    def check(self, x0: Tensor, batch_size: int) -> None:
        """Everything that the term of some step would refuse, whichever steps are evaluated; costs no evaluation.

        Args:
            x0: data `[B, *dims]`.
            batch_size: examples inspected at a time.

        Raises:
            ValueError: the parameterization is undefined at a step, or data lie off the decoder's lattice.
        """
        nothing = torch.zeros(self.schedule.T, 1, dtype=torch.float64)
        self._mean(nothing, nothing, torch.arange(1, self.schedule.T + 1))
        if self.levels is None:
            return
        for rows in x0.split(batch_size):
            lattice_index(rows, self.levels)

    def step(self, x_t: Tensor, t: Tensor) -> Gaussian:
        """p(x_{t−1} | x_t) in float64 for rows `x_t [n, *dims]` at steps `t [n]`; one evaluation a row.

        Called inside `evaluation_mode(model)`, which is entered once around a loop.
        """
        # A copy: a network may begin with a layer that works in place.
        output = self.model(x_t.clone(), self.schedule.original_timesteps(t))
        prediction, learned = checked_output(output, x_t)
        mean = self._mean(prediction.double(), x_t.double(), t)
        if learned is not None:
            self.seen.learned = True
            return Gaussian(mean, learned.double())
        shape = (-1,) + (1,) * (x_t.ndim - 1)
        return Gaussian(mean, self.log_variance.to(t.device)[t].view(shape).expand_as(mean))

    def _mean(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """μ_θ(x_t, t) from the prediction."""
        if self.clip is None:
            return convert(
                prediction, x_t, t, self.schedule, source=self.parameterization, to="mean"
            )
        x0 = convert(prediction, x_t, t, self.schedule, source=self.parameterization, to="x0")
        return convert(
            x0.clamp(-self.clip, self.clip), x_t, t, self.schedule, source="x0", to="mean"
        )

    def terms(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """One noise draw of the term of step t: eq. (5) for t ≥ 2, eq. (4) for t = 1; float64 `[n]` nats.

        Unbiased for L_{t−1}(x_0), since x_t = √ᾱ_t x_0 + √(1−ᾱ_t)·noise is the only random thing in it. One evaluation a row.
        """
        x_t = q_sample(x0, t, self.schedule, noise)
        reverse = self.step(x_t, t)
        x0, x_t = x0.double(), x_t.double()
        result = torch.empty(len(t), dtype=torch.float64, device=x0.device)
        last = t == 1
        if bool(last.any()):
            result[last] = self._reconstruction(
                x0[last], Gaussian(reverse.mean[last], reverse.log_var[last])
            )
        if not bool(last.all()):
            later = ~last
            forward = q_posterior(x0[later], x_t[later], t[later], self.schedule)
            kl = gaussian_kl(
                forward.mean, forward.log_var, reverse.mean[later], reverse.log_var[later]
            )
            result[later] = sum_dims(kl)
        return result

    def _reconstruction(self, x0: Tensor, reverse: Gaussian) -> Tensor:
        """−ln p(x_0 | x_1) `[n]` nats."""
        if self.decoder == "gaussian":
            likelihood = reverse.log_prob(x0)
        else:
            assert self.levels is not None  # reverse_process() has checked it
            likelihood = discretized_gaussian_log_likelihood(
                x0, reverse.mean, 0.5 * reverse.log_var, self.levels
            )
        return -sum_dims(likelihood)


def reverse_process(
    model: Model,
    schedule: Schedule,
    *,
    parameterization: str = "eps",
    variance: Variance = "posterior",
    decoder: str = "discretized",
    levels: int | None = None,
    clip: float | None = None,
) -> ReverseProcess:
    """A checked `ReverseProcess`; the arguments are those of `elbo`."""
    check_model(model)
    check_schedule(schedule)
    check_name("parameterization", parameterization, PARAMETERIZATIONS)
    check_name("decoder", decoder, _DECODERS)
    if decoder == "discretized" and levels is None:
        raise ValueError(
            "levels = None, but the discretized decoder needs the data set's number of grey levels: "
            "pass levels=256 for 8-bit images, levels=17 for digits, or decoder='gaussian' for continuous data"
        )
    clip = _checked_clip(clip)
    return ReverseProcess(
        model=model,
        schedule=schedule,
        parameterization=parameterization,
        log_variance=reverse_variance(variance, schedule).log(),
        decoder=decoder,
        levels=levels if decoder == "discretized" else None,
        clip=clip,
        variance_name=variance if isinstance(variance, str) else "table",
    )


def reverse_variance(variance: Variance, schedule: Schedule) -> Tensor:
    """σ_t², float64 `[T+1]` (entry 0 unused, entry 1 the decoder's): a named choice or a checked table.

    Raises:
        ValueError: unknown name, wrong length, or an entry 1 … T that is not positive and finite.
        TypeError: no `Schedule`, or neither a name nor numbers.
    """
    check_schedule(schedule)
    if isinstance(variance, str):
        check_name("variance", variance, VARIANCES)
        table = (schedule.beta if variance == "beta" else schedule.posterior_variance).clone()
        table[1] = schedule.beta[1]
        return table
    try:
        table = torch.as_tensor(variance, dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(
            f"variance = {shown(variance)} is neither a name nor numbers; pass one of {', '.join(VARIANCES)}, "
            f"or a table of {schedule.T + 1} numbers"
        ) from error
    if table.shape != (schedule.T + 1,):
        raise ValueError(
            f"variance has shape {list(table.shape)}, expected [{schedule.T + 1}]: one entry for each of "
            "0 ... T, where entry 0 is not used and entry 1 is the decoder's variance"
        )
    usable = (torch.isfinite(table[1:]) & (table[1:] > 0)).tolist()
    if not all(usable):
        bad = usable.index(False) + 1
        raise ValueError(
            f"variance[{bad}] = {table[bad].item()}; variances are positive and finite"
        )
    return table


def sum_dims(x: Tensor) -> Tensor:
    """Sum over everything but the batch: `[B, *dims]` → `[B]`."""
    return x.flatten(1).sum(dim=1) if x.ndim > 1 else x


@contextmanager
def evaluation_mode(model: object) -> Iterator[None]:
    """Put a module into eval mode without gradient, and every submodule back into the mode that it was in."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training


def check_data(name: str, x0: Tensor) -> None:
    """Data of a bound, `[B, *dims]`: floating point, finite, at least one number in an example; `[B]` has D = 1."""
    check_floating(**{name: x0})
    check_finite(**{name: x0})
    if x0.ndim == 0 or 0 in x0.shape[1:]:
        raise ValueError(
            f"{name} has shape {list(x0.shape)}, expected [B, *dims] with at least one number in an example: "
            f"pass {name}[None] if it is a single example; [B] or [B, 1] are examples of one number"
        )


def check_model(model: object) -> None:
    """A model can be called."""
    if not callable(model):
        raise TypeError(
            f"model is a {type(model).__name__}; pass a function or module that is called as model(x_t, t)"
        )


def checked_output(output: object, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
    """(prediction, log-variance or None) of what a model returned at `x_t`, both of x_t's shape and device.

    Raises:
        TypeError: not a tensor of floating-point numbers, nor a pair of them.
        ValueError: a tuple of another length, another shape or another device.
    """
    if isinstance(output, tuple) and len(output) != 2:
        raise ValueError(
            f"the model returned a tuple of {len(output)}; a prediction, or the pair (prediction, log_variance), is "
            "expected: unwrap it, e.g. lambda x, t: model(x, t)[0]"
        )
    prediction, learned = output if isinstance(output, tuple) else (output, None)
    prediction = _checked_part(prediction, x_t, "prediction")
    return prediction, None if learned is None else _checked_part(learned, x_t, "log_variance")


def _checked_clip(clip: float | None) -> float | None:
    if clip is None:
        return None
    bound = check_number("clip", clip, 1.0)
    if not bound > 0:
        raise ValueError(
            f"clip = {clip}; predicted x0 is clamped to [-clip, clip]: pass clip=1.0 or None"
        )
    return bound


def _checked_part(output: object, x_t: Tensor, name: str) -> Tensor:
    """One output of a model, which has the shape of its input."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"the model's {name} is a {type(output).__name__}; a tensor is expected: "
            "unwrap it, e.g. lambda x, t: model(x, t).sample"
        )
    if not output.is_floating_point():
        raise TypeError(
            f"the model's {name} has dtype {output.dtype}; floating-point numbers are expected: return output.float()"
        )
    if output.device != x_t.device:
        raise ValueError(
            f"the model's {name} is on {output.device} but x_t is on {x_t.device}: move the model with .to({x_t.device})"
        )
    if output.shape != x_t.shape:
        raise ValueError(
            f"the model's {name} has shape {list(output.shape)} but x_t has {list(x_t.shape)}: they must be equal; "
            "of a model with twice the channels pass output[:, :C], or the pair (prediction, log_variance), where the v in [-1, 1] of "
            "improved-diffusion's learned range is (v + 1)/2 of the way from ln posterior_variance to ln beta, not a log-variance itself"
        )
    return output
