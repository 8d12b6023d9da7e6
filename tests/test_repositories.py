"""Repositories by path: a checkout's own code is called, two of one name do not meet, what is missing is said; findings where checkouts are.

DDPM_BENCH_CHECKOUTS names a folder with clones, each under the repository's own name; without it those tests are skipped.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from ddpm_ref.conformance import Setting
from ddpm_ref.conformance.adapters.repositories import REPOSITORIES, implementations, is_repository
from ddpm_ref.conformance.adapters.repositories.checkout import (
    commit,
    file_module,
    first_on_path,
    package_module,
    stand_ins,
)

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).parents[1]
CHECKOUTS = os.environ.get("DDPM_BENCH_CHECKOUTS")


def checkout(name: str) -> Path:
    if CHECKOUTS is None:
        pytest.skip(f"no checkout of {name}: set DDPM_BENCH_CHECKOUTS to a folder of clones")
    path = Path(CHECKOUTS) / name
    if not path.is_dir():
        pytest.skip(f"no checkout of {name}: git clone {REPOSITORIES[name].url} {path}")
    return path


def test_a_reference_is_told_from_files_and_libraries() -> None:
    assert is_repository("improved-diffusion:/somewhere")
    assert is_repository("DiT")
    assert not is_repository("diffusers")
    assert not is_repository("edm.py:Mine")


@pytest.mark.parametrize("name", REPOSITORIES)
def test_a_folder_that_is_none_is_refused_with_the_remedy(name, tmp_path, capsys) -> None:
    assert main(["verify", "--against", f"{name}:{tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert f"git clone {REPOSITORIES[name].url}" in error
    assert REPOSITORIES[name].file in error
    assert error.count("\n") == 1


MIN_DIFFUSION = """
import torch
from torch import nn


class DDPM(nn.Module):
    def __init__(self, network, betas, T):
        super().__init__()
        self.network, self.T = network, T
        for name, table in ddpm_schedules(*betas, T).items():
            self.register_buffer(name, table)

    def forward(self, x):
        t = torch.randint(1, self.T + 1, (len(x),))
        kept = self.alphabar_t[t].view(-1, 1, 1, 1)
        self.network(kept.sqrt() * x + (1 - kept).sqrt() * torch.randn_like(x), t)


def ddpm_schedules(first, last, T):
    beta = first + (last - first) * torch.arange(T + 1, dtype=torch.float32) / T
    beta[0] = BETA_0
    return {"alpha_t": 1 - beta, "alphabar_t": torch.cumprod(1 - beta, 0)}
"""


@pytest.mark.parametrize(("first", "holds"), [("0.0", True), ("first", False)])
def test_the_adapter_tells_one_factor_of_noise_too_many(tmp_path, first, holds) -> None:
    """Code of our own with minDiffusion's names: right with β_0 = 0, wrong with β_0 = β_1 as in the repository.

    Right code on its float32 tables is still off by 3e-5 of the noise at t = 2, where 1 − ᾱ has lost its digits: precision.
    """
    from ddpm_ref.conformance import verify
    from ddpm_ref.conformance.lawbook import LAWS

    folder = tmp_path / "mindiffusion"
    folder.mkdir()
    (folder / "ddpm.py").write_text(MIN_DIFFUSION.replace("BETA_0", first))
    (adapter,) = implementations("minDiffusion", tmp_path)
    found = verify(adapter, [LAWS["I1-marginal"]])
    classes = {outcome.dtype: outcome.classification for outcome in found}
    if holds:
        assert classes == {"float64": None, "float32": "precision"}
        return
    assert classes == {"float64": "bug", "float32": "bug"}
    assert all("q_sample" in outcome.message for outcome in found)


def test_two_checkouts_of_one_module_name_do_not_meet(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "diffusion.py").write_text("from . import part\nNAME = part.NAME\n")
        (tmp_path / name / "part.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "__init__.py").write_text(
            "raise RuntimeError('the package was imported')\n"
        )
    found = {
        n: package_module(tmp_path / n, "diffusion", f"checkout_test_{n}") for n in ("one", "two")
    }
    assert [found[n].NAME for n in ("one", "two")] == ["one", "two"]
    again = package_module(tmp_path / "two", "diffusion", "checkout_test_one")
    assert again.NAME == "two"
    assert "diffusion" not in sys.modules
    module = file_module(tmp_path / "one" / "part.py", "checkout_test_file")
    assert module.NAME == "one"


def test_the_path_and_the_modules_are_as_before(tmp_path) -> None:
    (tmp_path / "json_of_theirs").mkdir()
    (tmp_path / "json_of_theirs" / "part.py").write_text(
        "import absent_package_of_theirs as a\n@a.decorator\ndef f():\n    return 7\nclass N(a.Module):\n    pass\n"
    )
    path, names = list(sys.path), set(sys.modules)
    with stand_ins("absent_package_of_theirs"), first_on_path(tmp_path, "json_of_theirs"):
        import json_of_theirs.part as part  # type: ignore[import-not-found]
    assert part.f() == 7
    assert issubclass(part.N, torch.nn.Module)
    assert sys.path == path
    assert set(sys.modules) == names
    with stand_ins("json"):
        import json as real

        assert real.dumps([1]) == "[1]"  # what is installed is not stood in for


def test_a_folder_without_git_has_an_unknown_commit(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == "unknown"


def records() -> list[dict]:
    found = [json.loads(p.read_text()) for p in (ROOT / "reports" / "repositories").glob("*.json")]
    return [each for each in found if each["kind"] == "verify"]


def recorded_bugs() -> set[tuple[str, str]]:
    """(implementation, law) of each bug in the committed records; `precision` is none: float32 tables are what they are."""
    rows = [row for record in records() for row in record["results"]["laws"]]
    return {(r["implementation"], r["law"]) for r in rows if r.get("classification") == "bug"}


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", REPOSITORIES)
def test_findings_on_a_checkout(name) -> None:
    from ddpm_ref.conformance import verify

    known = {
        each["name"]: each["version"]
        for record in records()
        for each in record["results"]["implementations"]
    }
    for adapter in implementations(name, checkout(name)):
        if adapter.version != known[adapter.name]:
            # The record is of one commit: other code may have other bugs, and none of these.
            pytest.skip(f"recorded of {known[adapter.name]}, the checkout is {adapter.version}")
        bugs = {o.law for o in verify(adapter) if o.failed and o.classification == "bug"}
        expected = {law for who, law in recorded_bugs() if who == adapter.name}
        assert bugs == expected, adapter.name


@pytest.mark.filterwarnings("ignore")  # theirs
def test_latent_diffusions_weight_on_a_checkout() -> None:
    """T = 1000 linear, our t = 2: 0.4998 in use, ½(SNR(1) − SNR(2)) = 2726.3 in truth."""
    _, x0 = implementations("latent-diffusion", checkout("latent-diffusion"))
    found = x0.weight(Setting("linear", 1000), "elbo", torch.tensor([2]), "x0").item()
    assert found == pytest.approx(0.4998, abs=1e-3)
    beta = [1e-4, 1e-4 + 0.0199 / 999]
    bar = [1 - beta[0], (1 - beta[0]) * (1 - beta[1])]
    assert (bar[0] / (1 - bar[0]) - bar[1] / (1 - bar[1])) / 2 == pytest.approx(2726.3, abs=0.1)


def test_the_bound_of_improved_diffusion_is_ours_term_by_term() -> None:
    """With σ_1² = β̃_2 and a network that always says the same x̂_0, no term depends on the noise that either draws."""
    from ddpm_ref import elbo, linear_schedule
    from ddpm_ref.reverse import reverse_variance

    (adapter,) = implementations("improved-diffusion", checkout("improved-diffusion"))
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(20, 236, (1, 3, 4, 4), generator=generator).double()
    x0 = levels / 127.5 - 1
    said = x0 + 0.004 * torch.randn(x0.shape, generator=generator, dtype=torch.float64)

    def model(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return said.expand_as(x_t)

    theirs = adapter.bound(
        Setting("linear", 1000), model, x0, "x0", "posterior", "discretized", 256
    )
    schedule = linear_schedule(1000)
    table = reverse_variance("posterior", schedule)
    table[1] = table[2]
    ours = elbo(model, x0, schedule, parameterization="x0", variance=table, levels=256)
    bits = 48 * torch.tensor(2.0).log().double()
    torch.testing.assert_close(theirs.prior / bits, ours.prior / bits, rtol=0, atol=1e-12)
    torch.testing.assert_close(theirs.diffusion / bits, ours.diffusion / bits, rtol=0, atol=1e-12)
    reconstruction = (theirs.reconstruction - ours.reconstruction).abs() / bits
    assert 0 < float(reconstruction.max()) < 0.002  # their CDF is a tanh


def test_the_committed_records_and_the_page_say_the_same() -> None:
    """Each bug of a record has its line on the page, by implementation and law."""
    page = (ROOT / "docs" / "what-we-found.md").read_text(encoding="utf-8")
    there = [each for record in records() for each in record["results"]["implementations"]]
    assert {each["source"].partition(":")[0] for each in there} == set(REPOSITORIES)
    for each in there:
        assert each["source"].partition(":")[0] in REPOSITORIES
        assert each["version"] in page, each["name"]
    lines = [line for line in page.splitlines() if line.startswith("|")]
    for implementation, law in recorded_bugs():
        name = implementation.partition(":")[0]
        assert any(name in line and f"`{law}`" in line for line in lines), (implementation, law)


def test_no_record_is_large_and_none_blames_an_adapter() -> None:
    for path in (ROOT / "reports" / "repositories").glob("*.json"):
        assert path.stat().st_size < 1_200_000
        rows = json.loads(path.read_text())["results"]["laws"]
        assert not [row for row in rows if row.get("classification") == "adapter"], path.name
