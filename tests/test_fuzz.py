"""A short profile of `python -m tests.fuzz`, and proof that it finds what it is to find."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_ref import gaussian_kl
from tests.fuzz.__main__ import fuzz
from tests.fuzz.functions import CALLS, check_kl
from tests.fuzz.parsers import PARSERS, beginnings
from tests.fuzz.property import BrokenProperty, Call, outcome


@pytest.mark.parametrize("name", CALLS)
def test_every_call_returns_or_says_why_not(name: str) -> None:
    counts = fuzz(name, 40, seed=1)
    assert counts.total() >= 40
    assert counts["values"] >= 3


def grow(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (grow, {"x": torch.ones(2)}, "changed its argument x"),
        (torch.log, {"input": -torch.ones(2)}, "made a NaN of finite numbers"),
        (torch.stack, {"tensors": [1, 2]}, "somebody else's TypeError"),
        (lambda x: x[5], {"x": [1]}, "raised IndexError"),
    ],
)
def test_what_must_not_happen_is_seen(function, given, message: str) -> None:
    with pytest.raises(BrokenProperty, match=message):
        outcome(Call(function, given))


def test_a_wrong_value_is_seen() -> None:
    parts = {
        name: torch.tensor([0.3], dtype=torch.float64)
        for name in ("mean1", "log_var1", "mean2", "log_var2")
    }
    parts["mean1"] = parts["mean1"] + 1
    call = Call(gaussian_kl, parts)
    check_kl(call, gaussian_kl(**parts))
    with pytest.raises(BrokenProperty, match="is right"):
        check_kl(call, gaussian_kl(**parts) * (1 + 1e-10))


@pytest.mark.parametrize("name", PARSERS)
def test_parsers_survive_a_hundred_damages_of_a_real_file(name: str, tmp_path: Path) -> None:
    """What `python -m tests.fuzz.parsers` does for hours, for a moment: cuts and flips."""
    rng = np.random.default_rng(5)
    for content in beginnings(name):
        PARSERS[name](content, tmp_path / "data")
        for trial in range(100 if name != "checkpoint" else 20):
            broken = bytearray(content[: rng.integers(len(content))] if trial % 2 else content)
            for _ in range(1 + trial % 3):
                if broken:
                    broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
            PARSERS[name](bytes(broken), tmp_path / "data")
