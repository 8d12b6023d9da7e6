"""`capacity`, `optimal-loss`, `loss`: their figures against the Python functions, records that become a report, one-line errors."""

import json
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.data import load as load_data
from bench.measure.loss.optimal import linear_error
from bench.record import load
from bench.report import build, render
from bench.report.losses import better, memorizes
from ddpm_ref import (
    GaussianOracle,
    best_skip,
    min_snr,
    optimal_loss,
    rank_limited_excess,
    schedule_from_log_snr,
    validation_loss,
)
from ddpm_ref.checkpoint import load_checkpoint

FACTORY = """
from torch import nn
from bench.metrics.foreign_model import Foreign
from ddpm_ref.schedule import linear_schedule

class Shrink(nn.Module):
    def forward(self, x_t, t):
        return 0.5 * x_t

def make():
    print("a factory that talks")
    return Foreign(Shrink(), linear_schedule(9), parameterization="x0")

def nan():
    return Foreign(lambda x_t, t: x_t * float("nan"), linear_schedule(9), parameterization="x0")

def longer():
    return Foreign(Shrink(), linear_schedule(11), parameterization="x0")
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("run")
    words = ("--network", "mlp", "--set", "T=9", "--set", "network_options.width=16")
    assert main(["train", "--data", "digits", *words, "--steps", "3", "--out", str(out)]) == 0
    return str(out / "checkpoint.pt")


def only_record(directory: Path):
    (path,) = directory.glob("*.json")
    return load(path)


def answer(capsys: pytest.CaptureFixture) -> dict:
    """What `--json -` wrote to standard output, and nothing else stood there."""
    return json.loads(capsys.readouterr().out)


class TestCapacity:
    def test_is_the_price_of_the_data_sets_spectrum(self, capsys, tmp_path: Path) -> None:
        words = (
            "--data",
            "subspace:16",
            "--rank",
            "2",
            "--json",
            "-",
            "--out",
            str(tmp_path / "r"),
        )
        assert main(["capacity", *words, "--picture", str(tmp_path / "c.svg")]) == 0
        found = answer(capsys)
        assert found["schema"] == "ddpm-bench.capacity/1"
        spectrum = load_data("subspace:16").oracle.spectrum
        schedule, t = schedule_from_log_snr(found["log_snr"]), torch.arange(1, 42)
        for name in ("x0", "v", "eps"):
            cost = rank_limited_excess(spectrum, 2, t, schedule, parameterization=name) / 16
            assert found["excess"][name] == pytest.approx(cost.tolist(), rel=1e-9)
        skip = best_skip(spectrum, 2, t, schedule)
        least = rank_limited_excess(spectrum, 2, t, schedule, skip=skip) / 16
        assert found["excess"]["best skip"] == pytest.approx(least.tolist(), rel=1e-9)
        mmse = GaussianOracle(torch.zeros(16), torch.diag(spectrum)).mmse(schedule.log_snr[1:]) / 16
        assert found["least_error"] == pytest.approx(mmse.tolist(), rel=1e-9)
        assert (found["dims"], found["intrinsic"]) == (16, 3)  # 4 + 0.86 + 0.19 of 5.09
        assert "<svg" in (tmp_path / "c.svg").read_text()
        assert only_record(tmp_path / "r").protocol["command"] == (
            "ddpm-bench capacity --data subspace:16 --rank 2"
        )

    def test_a_wide_network_costs_nothing(self, capsys) -> None:
        assert main(["capacity", "--data", "spiral:7", "--rank", "8"]) == 0
        assert "rank 8 is not below D = 7" in capsys.readouterr().out

    def test_the_spectrum_of_images_is_that_of_the_training_part(self, capsys) -> None:
        assert main(["capacity", "--data", "digits", "--rank", "16", "--json", "-"]) == 0
        found = answer(capsys)
        rows = load_data("digits").train.double().flatten(1)
        expected = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0)).flip(0)
        assert found["spectrum"][:40] == pytest.approx(expected[:40].tolist(), rel=1e-6)
        assert found["spectrum_of"] == "1197 training examples"


class TestOptimalLoss:
    def test_is_the_least_loss_of_the_training_part(self, capsys, tmp_path: Path) -> None:
        words = ("--data", "spiral:3", "--examples", "7", "--subset", "64", "--seed", "3")
        assert main(["optimal-loss", *words, "--json", "-", "--out", str(tmp_path)]) == 0
        found = answer(capsys)
        data = load_data("spiral:3")
        schedule, t = schedule_from_log_snr(found["log_snr"]), torch.arange(1, 18)
        for part, images in (("training", None), ("heldout", data.heldout)):
            direct = optimal_loss(
                data.train, t, schedule, images=images, examples=7, subset=64, seed=3
            )
            assert found[part]["value"] == pytest.approx((direct.value / 3).tolist())
            assert found[part]["bias"] == pytest.approx((direct.bias / 3).tolist())
        assert found["used"] == 65
        assert only_record(tmp_path).protocol["subset"] == 64

    def test_the_linear_column_is_the_error_of_the_linear_denoiser(self) -> None:
        data = load_data("digits")
        schedule = schedule_from_log_snr([2.0, -1.0])
        linear = GaussianOracle.fit(data.train)
        training = linear_error(linear, data.train, schedule)
        assert training.tolist() == pytest.approx(linear.mmse(schedule.log_snr[1:]).tolist())
        images = data.heldout[:50].double().repeat(60, 1, 1, 1)
        held_out = linear_error(linear, data.heldout[:50], schedule)
        generator = torch.Generator().manual_seed(1)
        for t in (1, 2):
            noise = torch.randn(images.shape, generator=generator, dtype=torch.float64)
            signal, sigma = schedule.sqrt_alpha_bar[t], schedule.sqrt_one_minus_alpha_bar[t]
            x_t, steps = signal * images + sigma * noise, torch.full((len(images),), t)
            gaps = (images - linear.denoise(x_t, steps, schedule)).flatten(1).square().sum(dim=1)
            error = gaps.std().item() / len(gaps) ** 0.5
            assert abs(gaps.mean().item() - held_out[t - 1].item()) < 4 * error

    def test_the_table_is_in_the_space_asked_for(self, capsys) -> None:
        words = ("optimal-loss", "--data", "spiral:2", "--examples", "3", "--subset", "20")
        tables = {}
        for space in ("x0", "eps"):
            assert main([*words, "--space", space]) == 0
            lines = capsys.readouterr().out.splitlines()
            tables[space] = float(next(x for x in lines if x.strip().startswith("-3 ")).split()[-1])
        assert tables["eps"] == pytest.approx(tables["x0"] * 2.718281828**-3, rel=1e-2)

    def test_what_memorizing_means_is_said(self) -> None:
        def results(held_out: list[float]) -> dict:
            return {
                "log_snr": [2.0, 1.0, 0.0, -1.0],
                "heldout": {"value": held_out},
                "linear": {"heldout": [1.0] * 4},
            }

        assert "from log-SNR 1 upwards" in memorizes(results([9, 2, 0.5, 1.1]))
        assert "no worse" in memorizes(results([0.9, 2, 0.5, 1.1]))


class TestLoss:
    def test_one_checkpoint(self, checkpoint: str, capsys, tmp_path: Path) -> None:
        words = (
            "--examples",
            "23",
            "--evaluations",
            "200",
            "--weighting",
            "min_snr:3",
            "--seed",
            "4",
        )
        assert main(["loss", checkpoint, *words, "--json", "-", "--out", str(tmp_path / "r")]) == 0
        found = answer(capsys)
        trained = load_checkpoint(checkpoint, device="cpu")
        direct = validation_loss(
            trained.model,
            load_data("digits").heldout[:23],
            trained.schedule,
            parameterization="eps",
            weighting=min_snr(3),
            evaluations=200,
            seed=4,
        )
        (row,) = found["losses"]
        assert row["value"] == pytest.approx(direct.value, rel=1e-6)
        assert (row["low"], row["high"]) == pytest.approx(direct.interval(), rel=1e-6)
        assert found["difference"] is None
        assert "mlp" in row["subject"]
        command = only_record(tmp_path / "r").protocol["command"]
        assert command == (
            "ddpm-bench loss A.pt --data digits --part heldout --weighting min_snr:3 --evaluations 200 --seed 4"
        )

    def test_two_models_are_paired(self, checkpoint: str, theirs: Path, capsys) -> None:
        words = ("--model", f"{theirs}:make", "--examples", "23", "--evaluations", "300")
        assert main(["loss", checkpoint, *words, "--json", "-"]) == 0
        found = answer(capsys)
        first, second = found["losses"]
        assert found["difference"]["value"] == pytest.approx(first["value"] - second["value"])
        assert (first["output"], second["output"]) == ("eps", "x0")
        assert second["subject"] == "a model of your own"

    def test_a_checkpoint_against_itself_is_within_noise(self, checkpoint: str, capsys) -> None:
        words = ("--examples", "11", "--evaluations", "100")
        assert main(["loss", checkpoint, checkpoint, *words]) == 0
        assert "within noise" in capsys.readouterr().out

    def test_a_diverged_model_exits_1(self, theirs: Path, capsys, tmp_path: Path) -> None:
        words = ("--data", "digits", "--examples", "11", "--evaluations", "100")
        out = ("--out", str(tmp_path / "r"))
        assert main(["loss", "--model", f"{theirs}:nan", *words, *out]) == 1
        assert "not finite" in capsys.readouterr().out
        assert only_record(tmp_path / "r").results["losses"][0]["value"] is None

    def test_which_is_better(self) -> None:
        assert better({"low": -2.0, "high": -1.0}).startswith("A ")
        assert better({"low": 1.0, "high": 2.0}).startswith("B ")
        assert "noise" in better({"low": -1.0, "high": 2.0})
        assert "diverged" in better({"low": None, "high": None})

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "0 models"),
            (("CHECKPOINT", "CHECKPOINT", "CHECKPOINT"), "3 models"),
            (("CHECKPOINT", "--weighting", "min-snr"), "min_snr"),
            (("CHECKPOINT", "--weighting", "simple:3"), "takes no number"),
            (("CHECKPOINT", "--weighting", "p2:3"), "2 numbers"),
            (("CHECKPOINT", "--weighting", "min_snr:-1"), "positive"),
            (("CHECKPOINT", "--weighting", "min_snr:x"), "min_snr:5"),
            (("CHECKPOINT", "--model", "THEIRS:longer"), "differ in schedule"),
            (("CHECKPOINT", "--evaluations", "7"), "least is 8"),
        ],
    )
    def test_errors_are_one_line(
        self, words: tuple[str, ...], message: str, checkpoint: str, theirs: Path, capsys
    ) -> None:
        places = {"CHECKPOINT": checkpoint, "THEIRS": str(theirs)}
        given = [word.replace("THEIRS", places["THEIRS"]) for word in words]
        given = [places.get(word, word) for word in given]
        assert main(["loss", *given, "--examples", "5"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_records_become_sections_of_a_report(checkpoint: str, tmp_path: Path, capsys) -> None:
    out = ("--out", str(tmp_path))
    main(["capacity", "--data", "subspace:16", "--rank", "2", *out])
    main(["capacity", "--data", "spiral:7", "--rank", "9", *out])
    main(["optimal-loss", "--data", "spiral:2", "--examples", "5", "--subset", "40", *out])
    main(["loss", checkpoint, checkpoint, "--examples", "5", "--evaluations", "64", *out])
    records = [load(path) for path in sorted(tmp_path.glob("*.json"))]
    report = build(records)
    assert not report.broken
    pages = render(report)
    for words in ("What does a bottleneck cost?", "How small can the loss be?", "A − B"):
        assert words in pages["report.md"]
    assert render(build(list(reversed(records)))) == pages
    parts = {section["key"]: section for section in json.loads(pages["report.json"])["sections"]}
    assert set(parts["what-does-a-bottleneck-cost"]["data"]) == {
        "subspace:16, rank 2",
        "spiral:7, rank 9",
    }


@pytest.mark.parametrize(
    "words",
    [
        ("capacity", "--data", "digits", "--rank", "-1"),
        ("capacity", "--data", "digits"),
        ("capacity", "--data", "digit", "--rank", "3"),
        ("optimal-loss", "--data", "digits", "--examples", "1"),
        ("optimal-loss", "--data", "digits", "--space", "score"),
        ("optimal-loss", "--data", "digits", "--picture", "a.docx"),
    ],
)
def test_usage_errors(words: tuple[str, ...], capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == 2
    assert capsys.readouterr().err.count("\n") == 1
