"""`ddpm-bench bound` and `ddpm-bench estimator`: they write records that load, and exit with what they found."""

import re
import shlex
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.record import load
from bench.record.kinds import violations

FACTORY = """
from torch import nn
from ddpm_ref.schedule import cosine_schedule
from bench.metrics.foreign_model import Foreign

class Shrink(nn.Module):
    def forward(self, x_t, t):
        return 0.5 * x_t

def make():
    return Foreign(Shrink(), cosine_schedule(7), parameterization="x0")
"""


@pytest.fixture
def factory(tmp_path: Path) -> str:
    path = tmp_path / "theirs.py"
    path.write_text(FACTORY)
    return f"{path}:make"


def only_record(directory: Path):
    (path,) = directory.glob("*.json")
    return load(path)


def test_estimator_writes_its_record_and_reports_ratios(factory, tmp_path, capsys) -> None:
    out = tmp_path / "records"
    words = ("--examples", "23", "--evaluations", "150", "--repetitions", "12", "--data", "digits")
    status = main(["estimator", "--model", factory, *words, "--out", str(out)])
    record = only_record(out)
    assert status == (1 if violations(record) else 0)
    assert record.kind == "estimator"
    assert record.results["largest_spent"] <= 150
    assert set(record.results["evaluation_ratios"]) == {
        "full sum",
        "uniform t",
        "importance-sampled t",
    }
    assert record.protocol["subject"] == "a model of your own"
    assert record.data is not None
    assert record.data["name"] == "digits"
    assert record.protocol["command"] == (
        "ddpm-bench estimator --model FILE.py:FACTORY --data digits --part heldout --examples 23 --seed 0 "
        "--evaluations 150 --repetitions 12 --reference-draws 96"
    )
    assert "covers" in capsys.readouterr().out


def test_estimator_says_why_it_exits_1(factory, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("bench.record.kinds.COVERAGE", (1.1, 1.2))
    words = ("--examples", "23", "--evaluations", "64", "--repetitions", "2", "--data", "digits")
    assert main(["estimator", "--model", factory, *words, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("exit status 1: the 95 % interval covers") for line in said)


def test_the_command_of_an_estimator_record_trains_the_same_network(tmp_path, capsys) -> None:
    options = ("--parameterization", "v", "--set", 'schedule="cosine"', "--set", "T=9")
    options += ("--set", "network_options.base=8", "--set", "network_options.attention=[]")
    assert main(["train", *options, "--steps", "2", "--out", str(tmp_path / "run")]) == 0
    checkpoint, words = str(tmp_path / "run" / "checkpoint.pt"), ("--evaluations", "64")
    words += ("--examples", "5", "--repetitions", "2", "--reference-draws", "1")
    main(["estimator", checkpoint, *words, "--out", str(tmp_path / "records")])
    protocol = only_record(tmp_path / "records").protocol
    assert re.fullmatch(r"v/simple, cosine, unet of \d+ parameters", protocol["subject"])
    training, estimating = protocol["command"].split(" && ")
    assert "--evaluations 64" in estimating
    assert str(tmp_path) not in protocol["command"]
    again = [word.replace("RUN", str(tmp_path / "again")) for word in shlex.split(training)[1:]]
    assert main(again) == 0
    first, second = (tmp_path / name / "config.toml" for name in ("run", "again"))
    assert first.read_text() == second.read_text()


def test_bound_prices_a_model_and_exits_0(factory, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("bench.measure.bound.exact.gaps", lambda steps: [{"gap": 0.5}])
    monkeypatch.setattr("bench.measure.bound.exact.i_mmse", list)
    out = tmp_path / "records"
    words = ("--examples", "5", "--data", "digits", "--out", str(out))
    assert main(["bound", "--model", factory, *words]) == 0
    results = only_record(out).results
    assert results["model"]["rows"][0]["T"] == 7
    assert results["grid"] is None
    assert "least slack" in capsys.readouterr().out


def test_bound_exits_1_where_an_inequality_fails(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bench.measure.bound.exact.gaps", lambda steps: [{"gap": -0.1}])
    monkeypatch.setattr("bench.measure.bound.exact.i_mmse", list)
    assert main(["bound", "--out", str(tmp_path)]) == 1


def test_unwritable_out_is_an_error_of_use(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["bound", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "cannot write" in capsys.readouterr().err
