"""One call of every method in every option, for the laws that ask how a method behaves and not what it says."""

from collections.abc import Iterator
from typing import Any

import torch

from ddpm_ref.conformance.agreement.inputs import arranged, operand, steps_of
from ddpm_ref.conformance.agreement.methods import METHODS, Method, Options
from ddpm_ref.conformance.guarded import offers
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import draw
from ddpm_ref.conformance.lawbook.truth import OTHER_WEIGHTS_IN_X0, Truth
from ddpm_ref.conformance.setting import Setting

SHARED = ("mean", "covariance", "weights", "means", "covariances", "data")
"""Arguments that describe a distribution and have no batch axis."""

Call = tuple[str, dict[str, Any]]


def calls(
    implementation: Implementation,
    setting: Setting,
    known: Truth,
    batch: int,
    dims: tuple[int, ...],
    *,
    every: bool = True,
) -> Iterator[Call]:
    """One call of every method that is offered and takes a batch, in each option (or the last of them alone), at steps where it is defined."""
    for method in METHODS.values():
        if not offers(implementation, method.name):
            continue
        options = [
            o
            for o in method.offered(implementation)
            if o.get("weighting") not in OTHER_WEIGHTS_IN_X0
        ]
        for chosen in options if every else options[-1:]:
            steps = _steps(method, known, chosen, batch)
            if steps:
                yield _call(method, setting, chosen, steps, (batch, *dims))
    for name, arguments in _of_distributions(setting, known, batch):
        if offers(implementation, name):
            yield name, arguments


def _steps(method: Method, known: Truth, options: Options, batch: int) -> list[int]:
    steps = steps_of(method, known, options).tolist()
    low, high = steps[: len(steps) // 3 + 1], steps[::-1]
    mixed = [step for pair in zip(high, low, strict=False) for step in pair] or steps
    return (mixed * batch)[:batch]


def _call(
    method: Method, setting: Setting, options: Options, steps: list[int], shape: tuple[int, ...]
) -> Call:
    shape = shape[:1] if method.vector else shape
    operands = {
        name: operand("normal" if kind == "wide" else kind, shape, 1 + k)
        for k, (name, kind) in enumerate(method.operands.items())
    }
    return method.name, arranged(method.name, setting, torch.tensor(steps), operands, options)


def _of_distributions(setting: Setting, known: Truth, batch: int) -> Iterator[Call]:
    """Exact denoisers and densities, `[B, 3]`."""
    low, high = min(2, known.T), max(known.T - 1, 1)
    t = torch.tensor(([high, low, (low + high) // 2] * batch)[:batch])
    flat, identity = draw((batch, 3), 4), torch.eye(3, dtype=torch.float64)
    gaussian = {"mean": draw((3,), 9), "covariance": identity + 0.5}
    mixture = {
        "weights": torch.tensor([0.25, 0.75], dtype=torch.float64),
        "means": draw((2, 3), 11),
        "covariances": torch.stack([identity, identity + 0.5]),
    }
    yield "gaussian_denoise", {"setting": setting, **gaussian, "x_t": flat, "t": t}
    yield "mixture_denoise", {"setting": setting, **mixture, "x_t": flat, "t": t}
    yield "empirical_denoise", {"setting": setting, "data": draw((7, 3), 13), "x_t": flat, "t": t}
    yield "gaussian_log_prob", {**gaussian, "x0": flat}
    yield "mixture_log_prob", {**mixture, "x0": flat}
    decoder = {"x": draw((batch, 3), 2).sign(), "mean": draw((batch, 3), 5), "log_scale": flat / 3}
    yield "discretized_log_likelihood", {**decoder, "levels": 17}
