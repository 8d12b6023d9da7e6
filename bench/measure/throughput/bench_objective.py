"""The loss: from a prediction and its noise to one number per example, and back to the gradient.

Beside it the shortest possible loss, `torch.nn.functional.mse_loss` against ε: what the weighting and the choice
of target cost. Checked against w ‖prediction − target‖²/d in float64, and the gradient against 2 w (prediction − target)/d.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.measure.throughput.case import Measuring, checked
from bench.measure.throughput.conftest import measures
from bench.measure.throughput.problem import Problem, problem
from ddpm_ref.objective import loss, weight
from ddpm_ref.parameterization import target

MEASURED, ONCE = "128x3x32x32", "5x3x7x7"
PLAIN = "mse_loss"
OBJECTIVES = (PLAIN, "eps/simple", "eps/elbo", "x0/simple_x0", "v/min_snr")
_TOLERANCE = 1e-4
"""Relative to the largest entry: float32 sums over 3072 squares, each with weights up to 1e4 (`elbo` at t = 1)."""


@dataclass(frozen=True)
class Case:
    """One objective on one batch."""

    name: str
    batch: Problem
    prediction: Tensor

    def losses(self) -> Tensor:
        """`[B]`, or the batch mean for the plain loss."""
        if self.name == PLAIN:
            return functional.mse_loss(self.prediction, self.batch.noise)
        space, weighting = self.name.split("/")
        p = self.batch
        return loss(
            self.prediction,
            p.x0,
            p.noise,
            p.t,
            p.schedule,
            parameterization=space,
            weighting=weighting,
        )

    def gradient(self) -> Tensor:
        """∂ mean(losses)/∂ prediction."""
        (gradient,) = torch.autograd.grad(self.losses().mean(), self.prediction)
        return gradient

    def truth(self) -> tuple[Tensor, Tensor]:
        """Losses `[B]` and gradient in float64."""
        space, weighting = ("eps", "simple") if self.name == PLAIN else self.name.split("/")
        p = self.batch
        wanted = target(space, p.x0.double(), p.noise.double(), p.t, p.schedule)
        factor = weight(weighting, p.t, p.schedule, parameterization=space).to(p.device)
        difference = self.prediction.detach().double() - wanted
        losses = factor * difference.square().flatten(1).mean(1)
        view = factor.view(-1, *[1] * (p.x0.ndim - 1))
        return losses, 2 * view * difference / p.elements


@pytest.fixture
def case(request: pytest.FixtureRequest, device: torch.device, objective: str) -> Case:
    """A batch with a prediction that is noise of its own."""
    batch = problem(MEASURED if measures(request.config) else ONCE, device=device.type)
    prediction = batch.noise.flip(0).clone().requires_grad_()
    return Case(objective, batch, prediction)


def _agree(got: Tensor, truth: Tensor) -> bool:
    error = (got.detach().double() - truth).abs().max() / truth.abs().max()
    return bool(error < _TOLERANCE)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_forward(measuring: Measuring, case: Case, device: torch.device) -> None:
    got, truth = case.losses(), case.truth()[0]
    holds = _agree(got.mean() if got.ndim == 0 else got, truth.mean() if got.ndim == 0 else truth)
    measuring.benchmark.group = "objective, forward"
    measuring.describe(
        case.name,
        shape=case.batch.x0.shape,
        dtype=torch.float32,
        verified=checked("the loss agrees with float64", holds),
    )
    measuring.case(case.losses, items=len(case.batch.t), item="image", device=device)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_forward_and_backward(measuring: Measuring, case: Case, device: torch.device) -> None:
    holds = _agree(case.gradient(), case.truth()[1])
    measuring.benchmark.group = "objective, forward + backward"
    measuring.describe(
        case.name,
        shape=case.batch.x0.shape,
        dtype=torch.float32,
        verified=checked("the gradient agrees with float64", holds),
    )
    measuring.case(case.gradient, items=len(case.batch.t), item="image", device=device)
