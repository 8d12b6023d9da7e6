"""Arguments as nobody means them: odd shapes, dtypes, layouts, values and types, in among ordinary ones."""

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from ddpm_ref import SCHEDULES, Schedule, schedule_from_beta, schedule_from_log_snr

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ODD_DTYPES = (torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn)
JUNK = (
    None,
    True,
    -1,
    10**400,
    1.5,
    math.nan,
    "eps",
    b"eps",
    [],
    {},
    (),
    object(),
    [[1.0], [2.0, 3.0]],
)

junk = st.sampled_from(JUNK)
seeds = st.integers(0, 2**31)
shapes = st.one_of(
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    st.lists(st.integers(0, 3), min_size=0, max_size=5).map(tuple),
)


def rarely(odd: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The odd one about once in 24."""
    return st.integers(0, 23).flatmap(lambda die: odd if die == 0 else usual)


@st.composite
def tensors(draw: Any, shape: tuple[int, ...], *, spread: float = 1.0) -> Tensor:
    """Floating-point numbers: normal, with extremes and non-finite ones now and then; contiguous or not."""
    generator = torch.Generator().manual_seed(draw(seeds))
    dtype = draw(rarely(st.sampled_from(ODD_DTYPES), st.sampled_from(DTYPES)))
    values = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    special = draw(
        rarely(st.sampled_from((0.0, 1e-300, 1e300, math.inf, -math.inf, math.nan)), st.none())
    )
    if special is not None and values.numel():
        values.view(-1)[draw(st.integers(0, values.numel() - 1))] = special
    result = values.to(dtype)
    match draw(st.integers(0, 23)):
        case 0 if result.ndim >= 2:
            return result.transpose(0, -1).contiguous().transpose(0, -1)
        case 1 if result.ndim >= 1 and result.shape[0] > 0:
            return result[:1].expand_as(result)
        case 2 if result.ndim >= 1:
            return torch.stack([result, result], dim=-1)[..., 0]
        case 3 if result.is_floating_point() and dtype.itemsize > 1:
            return result.requires_grad_()
        case 4:
            return result.to("meta")
        case 5 if result.ndim == 2 and dtype in DTYPES:
            return result.to_sparse()
    return result


@st.composite
def schedules(draw: Any, most: int = 12) -> Schedule:
    """Named ones, random ones, and extreme ones that pass the constructors."""
    T = draw(st.integers(1, most))
    match draw(st.integers(0, 5)):
        case 0 | 1 | 2:
            return SCHEDULES[draw(st.sampled_from(sorted(SCHEDULES)))](T)
        case 3:
            betas = draw(st.lists(st.floats(1e-6, 0.9), min_size=1, max_size=most))
            return schedule_from_beta(betas)
        case 4:
            steps = sorted(
                set(draw(st.lists(st.floats(-700, 700), min_size=1, max_size=most))), reverse=True
            )
            return schedule_from_log_snr(steps)
        case _:
            steps = sorted(
                set(draw(st.lists(st.floats(-20, 20), min_size=1, max_size=most))), reverse=True
            )
            return schedule_from_log_snr([*steps, -math.inf])


@st.composite
def step_indices(draw: Any, batch: int, T: int) -> Tensor:
    """One step a row, now and then outside, of another length or dtype."""
    t = torch.tensor([draw(st.integers(1, T)) for _ in range(batch)], dtype=torch.int64)
    match draw(st.integers(0, 39)):
        case 0 if batch:
            t[0] = draw(st.sampled_from((0, -1, T + 1, 2**62)))
        case 1:
            return t.float()
        case 2:
            return torch.cat([t, t])
        case 3:
            return t[:, None]
        case 4:
            return t.int()
        case 5:
            return t.to("meta")
    return t
