r"""What an exact model is: the conditional means of the two unknowns, in every parameterization.

Minimizing a squared error over all functions of x_t gives the conditional mean. For x_t = √ᾱ x_0 + √(1−ᾱ) ε the two unknowns are
tied by

    x_t = √ᾱ E[x_0 | x_t] + √(1−ᾱ) E[ε | x_t],                                                           (1)

and since every parameterization is a fixed combination y = a·x_0 + b·ε, its optimum is a·E[x_0 | x_t] + b·E[ε | x_t]. (1) yields one
mean from the other, but at the ends of the schedule only with cancellation: an oracle states both.

E[ε | x_t] is also the score of the noisy data (Tweedie's formula): ∇ ln q(x_t) = −E[ε | x_t]/√(1−ᾱ).            (2)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_ref.parameterization import PARAMETERIZATIONS, target
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import (
    check_finite,
    check_floating,
    check_has_values,
    check_indices,
    check_name,
    check_steps,
)


class Oracle(ABC):
    """A data distribution over examples of shape `dims` with known conditional means."""

    dims: torch.Size

    @property
    def size(self) -> int:
        """D, the number of dimensions of one example."""
        return math.prod(self.dims)

    @abstractmethod
    def conditional_means(
        self, x_t: Tensor, signal: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(E[x0 | x_t], E[eps | x_t]) for x_t = signal·x0 + sigma·eps.

        Args:
            x_t: float64 `[B, D]`.
            signal: √ᾱ, float64 `[B, 1]`, in [0, 1].
            sigma: √(1−ᾱ), float64 `[B, 1]`, > 0.

        Returns:
            Both conditional means, float64 `[B, D]`.
        """

    def denoise(self, x_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """E[x0 | x_t], the denoiser of least squared error, in x_t's shape and dtype (computed in float64).

        Args:
            x_t: noisy data `[B, *dims]`.
            t: steps 1 … T of `schedule`, int64 `[B]`.
            schedule: the noise schedule.

        Raises:
            ValueError: x_t has other dims than this distribution, or t lies outside 1 … T.
        """
        return self._both(x_t, t, schedule)[0].to(x_t.dtype)

    def model(
        self, schedule: Schedule, parameterization: str = "eps"
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The perfect network: `model(x_t, timestep) -> prediction` in `parameterization`.

        Like any network it receives the original step index, and maps `schedule.timesteps[t−1]` back to t.

        Raises (the model too, as `denoise` does):
            ValueError: unknown name, or timesteps that are not among the schedule's (checked where they are on the CPU).
            TypeError: timesteps that are no integer tensor, or a schedule that is no `Schedule`.
        """
        check_schedule(schedule)
        check_name("parameterization", parameterization, PARAMETERIZATIONS)

        def predict(x_t: Tensor, timestep: Tensor) -> Tensor:
            t = _index_of(timestep, schedule)
            x0, eps = self._both(x_t, t, schedule)
            return target(parameterization, x0, eps, t, schedule).to(x_t.dtype)

        return predict

    def _both(self, x_t: Tensor, t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Conditional means in float64, in x_t's shape."""
        check_floating(x_t=x_t)
        self._check_dims(x_t, "x_t")
        check_schedule(schedule)
        check_steps(t, schedule.T, x_t.shape[0])
        check_has_values("x_t", x_t)
        if t.device != x_t.device:
            raise ValueError(
                f"t is on {t.device} but x_t is on {x_t.device}: pass t.to(x_t.device)"
            )
        x0, eps = self.conditional_means(
            self._flat(x_t),
            schedule.lookup("sqrt_alpha_bar", t)[:, None],
            schedule.lookup("sqrt_one_minus_alpha_bar", t)[:, None],
        )
        return x0.view(x_t.shape), eps.view(x_t.shape)

    def _flat(self, x: Tensor) -> Tensor:
        return x.double().reshape(x.shape[0], self.size)

    def _checked_data(self, x0: Tensor) -> Tensor:
        """Finite data of the right dims, flattened to float64 `[B, D]`."""
        check_floating(x0=x0)
        self._check_dims(x0, "x0")
        check_finite(x0=x0)
        return self._flat(x0)

    def _check_dims(self, x: Tensor, name: str) -> None:
        if x.shape[1:] != self.dims:
            raise ValueError(
                f"{name} has shape {list(x.shape)}, but this distribution is over examples of shape "
                f"{list(self.dims)}: pass [B, {', '.join(map(str, self.dims))}]"
            )


def check_examples(data: Tensor) -> None:
    """Data to make a distribution of: at least one example `[N, *dims]`, floating point, finite."""
    check_floating(data=data)
    check_finite(data=data)
    if data.ndim < 2 or 0 in data.shape:
        raise ValueError(
            f"data has shape {list(data.shape)}; pass at least one example, [N, *dims]"
        )


def parameter(value: Tensor | float, name: str) -> Tensor:
    """A parameter of a distribution as float64, detached.

    Integers and lists will do, since they are exact; data, whose integers are grey levels on another scale, are refused
    by `check_floating` instead.

    Raises:
        TypeError: complex, or no numbers at all.
        ValueError: not finite.
    """
    try:
        given = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} is a {type(value).__name__} that holds no array of numbers; pass a tensor"
        ) from error
    check_has_values(name, given)
    if given.layout != torch.strided:
        raise TypeError(f"{name} has layout {given.layout}; pass a dense tensor: {name}.to_dense()")
    if given.is_complex():
        raise TypeError(f"{name} has dtype {given.dtype}; pass real numbers: {name}.real")
    given = torch.as_tensor(value, dtype=torch.float64).detach()
    check_finite(**{name: given})
    return given


def eigensystem(covariance: Tensor, size: int, name: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues `[D]` and eigenvectors `[D, D]` (columns) of a checked covariance, float64.

    An eigenvalue that rounding alone explains, up to D·ε times the largest, is 0: a flat direction.

    Raises:
        ValueError: not `[D, D]`, not finite, not symmetric, or with a negative eigenvalue.
        TypeError: not real numbers.
    """
    matrix = parameter(covariance, name)
    if matrix.shape != (size, size):
        raise ValueError(
            f"{name} has shape {list(matrix.shape)}, expected [{size}, {size}] for examples of {size} dims: "
            "torch.diag(variances) makes one from variances"
        )
    scale = max(matrix.abs().max().item(), torch.finfo(torch.float64).tiny)
    asymmetry = (matrix - matrix.T).abs().max().item()
    if asymmetry > 1e-6 * scale:
        raise ValueError(
            f"{name} differs from its transpose by {asymmetry:.3g}; symmetrize it first"
        )
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    if values.min().item() < -1e-9 * scale:
        raise ValueError(
            f"{name} has the eigenvalue {values.min().item():.3g}; a covariance has none below 0: "
            "add a multiple of the identity if it came from rounded data"
        )
    return torch.where(values > _rounding(matrix, values), values, 0.0), vectors


def _rounding(matrix: Tensor, values: Tensor) -> float:
    """What `eigh` may return for an exact 0: its error is relative to the largest eigenvalue, none if diagonal."""
    if not bool((matrix - matrix.diagonal().diag()).any()):
        return 0.0
    return len(values) * torch.finfo(torch.float64).eps * values.max().item()


def _index_of(timestep: Tensor, schedule: Schedule) -> Tensor:
    """t with schedule.timesteps[t−1] = timestep."""
    check_indices("timestep", timestep)
    known = schedule.timesteps.to(timestep.device)
    t = torch.searchsorted(known, timestep.long()).clamp(max=schedule.T - 1)
    if timestep.device.type == "cpu" and not bool((known[t] == timestep).all()):
        stranger = timestep[known[t] != timestep][0].item()
        raise ValueError(
            f"timestep {stranger} is not among the {schedule.T} timesteps of the schedule: "
            "a model receives schedule.timesteps[t - 1], not the index t of a respaced schedule"
        )
    return t + 1
