"""docs/elbo-of-your-model.md: its factories are the bound of the exact model, written in two other notations."""

import re
from pathlib import Path

import pytest
import torch

from bench.metrics.foreign_model import adapt, load_foreign
from ddpm_ref.elbo import elbo
from ddpm_ref.oracle import GaussianOracle

pytestmark = pytest.mark.any_torch

PAGE = (Path(__file__).parents[1] / "docs" / "elbo-of-your-model.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("factory", ["flow_matching", "edm"])
def test_the_factories_are_the_exact_model(factory, tmp_path) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    file = tmp_path / f"page_{factory}.py"
    file.write_text(code[1])
    foreign = load_foreign(f"{file}:{factory}")
    schedule = foreign.schedule
    assert schedule is not None
    x0 = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    oracle = GaussianOracle(torch.zeros(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64))
    options = {"decoder": "gaussian", "parameterization": "x0"}
    found = elbo(adapt(foreign, schedule, "posterior"), x0, schedule, **options)
    direct = elbo(oracle.model(schedule, "x0"), x0, schedule, **options)
    torch.testing.assert_close(found.total, direct.total, rtol=1e-9, atol=1e-9)
