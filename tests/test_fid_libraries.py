"""Libraries that compute the FID under the laws: the laws' own truth by other roads, what is known of releases, the committed record and its page."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import nn

from bench.__main__ import main
from bench.measure.laws.ours import BenchReference
from bench.measure.laws.second_opinion.distance import frechet_of_features, frechet_of_moments
from ddpm_ref.conformance import Implementation, NotOffered
from ddpm_ref.conformance.adapters import FID, PEERS, implementations
from ddpm_ref.conformance.adapters.fid.stub import FirstLayer, Pooled, bare, shown
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.lawbook.frechet import expected_of_one_law, like_tensorflow
from ddpm_ref.conformance.runner import verify

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "fid.md"
ON_FID = [law for law in LAWS.values() if law.invariant == "I23"]
CASES = [
    case
    for id in ("I23-gaussians", "I23-singular")
    for case in LAWS[id].check(Implementation(), torch.float64)
]


# ------------------------------------------------------------------------------------------------ the laws' own truth


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # scipy's, where it is
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(list(case.arguments["mean1"].shape)))
def test_the_truth_without_a_root_is_that_of_scipys_root_and_of_50_digits(case) -> None:
    m1, c1, m2, c2 = (part.numpy() for part in case.arguments.values())
    values, basis = linalg.eigh(c1)
    half = (basis * np.sqrt(values.clip(min=0))) @ basis.T
    root = linalg.sqrtm(half @ c2 @ half).real
    scipys = (m1 - m2) @ (m1 - m2) + np.trace(c1 + c2 - 2 * root)
    assert float(case.expected) == pytest.approx(scipys, abs=3e-7 * case.scale)
    with mpmath.workdps(50):
        exact, _ = frechet_of_moments(
            {"arguments": {k: v.tolist() for k, v in case.arguments.items()}}
        )
    # the covariances were rounded to float64, and the root of a zero eigenvalue feels it
    assert float(case.expected) == pytest.approx(float(exact), abs=1e-7 * case.scale)


def test_features_of_few_images_by_hand() -> None:
    for case in LAWS["I23-few"].check(Implementation(), torch.float64):
        first, second = (part.numpy() for part in case.arguments.values())
        gaps = (first.mean(0) - second.mean(0)) ** 2
        gaps += (first.std(0, ddof=1) - second.std(0, ddof=1)) ** 2
        assert float(case.expected) == pytest.approx(gaps.sum(), rel=1e-12)
        with mpmath.workdps(50):
            exact, _ = frechet_of_features(
                {"arguments": {k: v.tolist() for k, v in case.arguments.items()}}
            )
        assert float(exact) == pytest.approx(gaps.sum(), rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 8, 50, 1000])
def test_the_bias_of_n_draws(n: int) -> None:
    c4 = stats.chi.mean(n - 1) / math.sqrt(n - 1)
    assert expected_of_one_law(n) == pytest.approx(2 / n + 2 * (1 - c4**2), rel=1e-9)
    assert n < 50 or expected_of_one_law(n) == pytest.approx(3 / n, rel=0.02)


def test_tensorflows_bilinear_by_hand() -> None:
    """A ramp is read at i·H/299 and stays at its last value beyond the last pixel."""
    ramp = torch.arange(7.0).reshape(1, 1, 1, 7).expand(1, 1, 3, 7)
    expected = [min(i * 7 / 299, 6.0) for i in range(299)]
    assert like_tensorflow(ramp)[0, 0, 100].tolist() == pytest.approx(expected, abs=1e-12)


def test_tensorflows_bilinear_is_torch_fidelitys() -> None:
    fidelity = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = torch.rand(2, 3, 8, 11, generator=torch.Generator().manual_seed(0))
    theirs = fidelity.interpolate_bilinear_2d_like_tensorflow1x(
        images, size=(299, 299), align_corners=False
    )
    torch.testing.assert_close(like_tensorflow(images).float(), theirs, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------ the stub


def test_the_stub_depends_on_its_batch_in_training_mode_alone() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    network = Pooled()
    assert not torch.equal(network(images)[:1], network(images[:1]))
    network.eval()
    assert torch.equal(network(images)[:1], network(images[:1]))
    assert torch.allclose(network(images), network(images.double() / 255))


def test_a_first_layer_that_is_not_reached_is_said() -> None:
    with pytest.raises(RuntimeError, match="not reached"):
        shown(lambda: None)
    with pytest.raises(NotOffered, match="1 channels"):
        FirstLayer()(torch.zeros(1, 1, 2, 2))
    assert not bare(nn.Identity).training


# ------------------------------------------------------------------------------------------------ ours, and the command


def test_without_the_extra_the_metrics_are_not_offered(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setattr("bench.measure.laws.ours.find_spec", lambda name: None)
    with pytest.raises(NotOffered, match="torch_fidelity"):
        BenchReference().network_input(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "bytes")
    with pytest.raises(NotOffered, match="torchmetrics"):
        BenchReference().frechet_distance(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))


@pytest.mark.filterwarnings("ignore")  # of other people's code
def test_the_command_asks_ours_and_what_is_installed(tmp_path, capsys) -> None:
    file = tmp_path / "found.json"
    words = ["verify", "--against", "fid", "--law", "I23-gaussians", "--json", str(file)]
    status = main(words)
    found = json.loads(file.read_text())
    sources = {each["source"] for each in found["implementations"]}
    there = {name for name in FID if importlib.util.find_spec(PEERS[name].requires)}
    assert "ddpm_ref" in sources
    assert sources <= {"ddpm_ref", *there}
    assert status == any(row["status"] in ("fail", "error") for row in found["laws"])
    said = capsys.readouterr().out
    assert all(f"{name}: not installed" in said for name in FID if name not in there)


# ------------------------------------------------------------------------------------------------ releases

RESIZED = {"I23-resize": "convention"}
KNOWN: dict[tuple[str, str], dict[str, dict[str, str]]] = {
    ("torchmetrics", "1.9.0"): {
        "torchmetrics": RESIZED,
        "torchmetrics: feature=a module": dict.fromkeys(
            ("I23-company", "I23-batches", "I23-last"), "convention"
        ),
    },
    ("pytorch-fid", "0.3.0"): {"pytorch-fid": RESIZED},
    ("clean-fid", "0.1.35"): {"clean-fid": RESIZED},
    ("torch-fidelity", "0.4.0"): {"torch-fidelity": {}},
    ("torcheval", "0.0.7"): {
        "torcheval": {**RESIZED, "I23-range": "bug", "I23-offset": "precision"}
    },
}
"""(library, release) → adapter → law that fails → class. What was read in their code; another release is measured and not compared."""


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # of other people's code
@pytest.mark.parametrize(("library", "release"), KNOWN)
def test_what_is_known_of_a_release(library: str, release: str) -> None:
    if importlib.util.find_spec(PEERS[library].requires) is None:
        pytest.skip(f"{library} is an optional library (tests/peers.txt) and not installed here")
    for adapter in implementations(library):
        if adapter.version != release:
            # What was read in one release's code says nothing about another's; CI pins these releases.
            pytest.skip(f"read in {library} {release}, installed is {adapter.version}")
        outcomes = [each for each in verify(adapter, ON_FID) if each.failed]
        found = {each.law: str(each.classification) for each in outcomes}
        assert found == KNOWN[library, release][adapter.name], adapter.name


# ------------------------------------------------------------------------------------------------ the committed record and its page


def record() -> dict:
    (path,) = (ROOT / "reports" / "fid").glob("*.json")
    assert path.stat().st_size < 1_200_000
    return json.loads(path.read_text())["results"]


def cell(rows: list[dict]) -> str:
    """A law on one library, over its dtypes: the class of the worst failure, a tick, or a dash where nothing was offered."""
    failed = [row["classification"] for row in rows if row["status"] in ("fail", "error")]
    if failed:
        return min(failed, key=("bug", "severe", "precision", "convention").index)
    return "✓" if any(row["status"] == "pass" for row in rows) else "–"


def table(found: dict) -> list[str]:
    names = [each["name"] for each in found["implementations"]]
    lines = ["| law | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for stated in found["statements"]:
        law = stated["law"]
        cells = [
            cell([r for r in found["laws"] if (r["implementation"], r["law"]) == (name, law)])
            for name in names
        ]
        lines.append(f"| `{law}` {stated['title']} | " + " | ".join(cells) + " |")
    return lines


def test_the_page_has_the_table_of_the_committed_record() -> None:
    found = record()
    assert {"ddpm_ref", *FID} <= {each["source"] for each in found["implementations"]}
    page = PAGE.read_text(encoding="utf-8")
    for line in table(found):
        assert line in page.splitlines(), line
    for each in found["implementations"]:
        assert f"{each['source']} {each['version']}" in page or each["source"] == "ddpm_ref"


def test_the_record_asks_the_laws_of_today_and_every_bug_is_explained() -> None:
    found = record()
    assert [each["law"] for each in found["statements"]] == [law.id for law in ON_FID]
    explained = PAGE.read_text(encoding="utf-8").partition("## What the rows mean")[2]
    for row in found["laws"]:
        if row["status"] in ("fail", "error"):
            assert f"`{row['law']}`" in explained, (row["implementation"], row["law"])
