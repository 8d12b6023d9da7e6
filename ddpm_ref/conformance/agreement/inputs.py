"""What the cases of the agreement layer are asked about: steps, shapes, and the values of operands.

Everything is a function of a declaration, so that two calls ask the same.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement.methods import Method, Options
from ddpm_ref.conformance.guarded import arguments_of
from ddpm_ref.conformance.lawbook.law import draw, probe_steps
from ddpm_ref.conformance.lawbook.truth import Truth
from ddpm_ref.conformance.setting import Setting

MANY = 64
"""Steps that code is asked about where it is called sample by sample."""
_SHAPES = ((2, 3), (5, 5), (3, 2, 7, 5))


def spread(steps: Tensor) -> Tensor:
    """The first and the last of many steps, and some between."""
    between = torch.linspace(0, len(steps) - 1, MANY // 2).long()
    chosen: Tensor = torch.cat([steps[: MANY // 4], steps[between], steps[-MANY // 4 :]]).unique()
    return chosen


def steps_of(method: Method, known: Truth, options: Options) -> Tensor:
    """Those with a finite answer, which only the last may lack, where ᾱ is 0."""
    last = known.T if method.defined(known.rows[-1], options) else known.T - 1
    return torch.arange(method.first, max(last, method.first - 1) + 1)


def batches(
    method: Method, known: Truth | None, options: Options
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Shapes with steps: every step at once, then one sample, B = D, and an image."""
    if known is None or not method.steps:
        last = 1 if known is None else known.T
        sizes: tuple[tuple[int, ...], ...] = ((1031, 2), (1, 1), *_SHAPES)
        if method.vector:
            sizes = ((1031,), (1,), (2,), (5,))
        yield from ((size, torch.full((size[0],), last)) for size in sizes)
        return
    steps = steps_of(method, known, options)
    if not len(steps):
        return
    yield ((len(steps),) if method.vector else (len(steps), 2)), steps
    probes = sorted({*steps.tolist()} & {*probe_steps(known.T)}) or steps[:1].tolist()
    for shape in ((1,), (3,)) if method.vector else ((1, 3), *_SHAPES):
        yield shape, torch.tensor((probes[::-1] * shape[0])[: shape[0]])


@lru_cache(maxsize=4096)
def operand(kind: str, shape: tuple[int, ...], salt: int) -> Tensor:
    """Values of a range, the same at each call; all of them in one batch, so that none is hidden by a larger one.

    One tensor for all who ask: what is handed to code under test is a copy.
    """
    z = draw(shape, salt)
    order = torch.arange(z.numel()).reshape(shape)
    if kind == "wide":
        size = torch.tensor([1.0, 1.0, 1e-3, 1.0, 300.0, 0.0, 1.0]).double()
        return z * size[(order + 3 * salt) % 7]
    if kind == "output":  # of a network: any real number, and the two ends of a range
        ends = torch.tensor([-1.0, 0.0, 1.0, -1.0, -1.0]).double()[order % 5]
        return torch.where(ends < 0, z, ends)
    if kind == "positive":
        return z.abs() + 0.1
    if kind == "logarithm":
        far = torch.tensor([0.0, 0.0, 0.0, 30.0, -30.0]).double()[(order + salt) % 5]
        return torch.where(far == 0, 3 * z - 2, far)
    return z


def operands_of(method: Method, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every operand of a method by name, in the ranges that its declaration says."""
    salts = {"x0": 1, "noise": 2, "eps": 2, "x_t": 4, "prediction": 5, "said": 5}
    return {
        name: operand(kind, shape, salts.get(name, 20 + k)).to(dtype)
        for k, (name, kind) in enumerate(method.operands.items())
    }


def arranged(
    name: str, setting: Setting | None, t: Tensor, operands: Mapping[str, Any], options: Options
) -> dict[str, Any]:
    """Arguments in the order of the method's signature."""
    known = {"setting": setting, "t": t, **operands, **options}
    return {argument: known[argument] for argument in arguments_of(name)}
