"""`ddpm-bench train`: one folder with everything, resumed bit for bit, errors in one line."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from ddpm_ref.checkpoint import load_checkpoint
from ddpm_ref.config import TrainConfig

ROOT = Path(__file__).parents[1]
TINY = ["--network", "article", "--set", "T=5", "--set", "batch_size=6", "--sampler-steps", "2"]


def losses(out: Path) -> list[str]:
    with open(out / "log.csv", newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_a_run_leaves_config_checkpoint_log_and_pictures(tmp_path, capsys):
    assert main(["train", *TINY, "--steps", "3", "--seed", "7", "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint.pt", "config.toml", "log.csv", "loss.png", "samples.png"
    ]  # fmt: skip
    config = TrainConfig.from_toml((tmp_path / "config.toml").read_text())
    assert (config.T, config.steps, config.seed, config.network) == (5, 3, 7, "article")
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 3
    assert len(losses(tmp_path)) == 3
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert "3 steps, loss" in capsys.readouterr().out


def test_train_prints_the_next_command_and_the_folder_is_a_checkpoint(tmp_path, capsys):
    out = tmp_path / "a run"
    assert main(["train", *TINY, "--steps", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.rpartition("next: ")[2]
    program, *words = shlex.split(printed)
    assert program == "ddpm-bench"
    budget = ["--examples", "9", "--evaluations", "60"]
    assert main([*words, *budget]) == 0
    by_folder = capsys.readouterr().out
    assert main(["elbo", str(out / "checkpoint.pt"), *budget]) == 0
    assert capsys.readouterr().out == by_folder
    assert main(["elbo", str(tmp_path)]) == 2
    assert "checkpoint.pt" in capsys.readouterr().err


def test_resume_continues_the_log_and_the_bits(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", *TINY, "--steps", "5", "--out", str(whole)]) == 0
    assert main(["train", *TINY, "--steps", "2", "--out", str(parts)]) == 0
    with open(parts / "log.csv", "a") as file:
        file.write("3,0.5,0,0,0\r\n")  # a step that was logged but not saved
    assert (
        main(["train", "--steps", "5", "--resume", "--sampler-steps", "2", "--out", str(parts)])
        == 0
    )
    assert losses(parts) == losses(whole)
    models = [load_checkpoint(out / "checkpoint.pt").model.state_dict() for out in (whole, parts)]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(parts)]) == 0
    assert "has its 5 steps already" in capsys.readouterr().out


def test_resuming_with_fewer_steps_changes_nothing_and_says_how_many_there_are(tmp_path, capsys):
    assert main(["train", *TINY, "--steps", "3", "--out", str(tmp_path)]) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    capsys.readouterr()
    assert main(["train", "--steps", "2", "--resume", "--out", str(tmp_path)]) == 0
    assert "has its 3 steps already" in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_learned_variance_takes_the_grey_levels_of_its_data(tmp_path):
    words = [*TINY, "--steps", "2", "--set", 'variance="learned"', "--out", str(tmp_path)]
    assert main(["train", *words]) == 0
    assert load_checkpoint(tmp_path / "checkpoint.pt").config.levels == 17
    assert (tmp_path / "samples.png").exists()


def test_a_damaged_checkpoint_is_one_line(tmp_path, capsys):
    assert main(["train", *TINY, "--steps", "2", "--out", str(tmp_path)]) == 0
    path = tmp_path / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["train", "--steps", "4", "--resume", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert "is damaged" in said
    assert len(said.splitlines()) == 1


def test_a_config_file_is_read_and_overridden(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('network = "article"\nT = 5\nsteps = 9\n[network_options]\nhidden = 3\n')
    words = ["--steps", "1", "--set", "network_options.hidden=4", "--sampler-steps", "1"]
    assert main(["train", "--config", str(file), *words, "--out", str(tmp_path / "run")]) == 0
    config = TrainConfig.from_toml((tmp_path / "run/config.toml").read_text())
    assert (config.T, config.steps, config.network_options) == (5, 1, {"hidden": 4})


def test_divergence_is_said_and_exits_1(tmp_path, capsys):
    words = [*TINY, "--steps", "60", "--set", "learning_rate=1e30", "--set", "warmup_steps=0"]
    assert main(["train", *words, "--out", str(tmp_path)]) == 1
    assert "diverged at step" in capsys.readouterr().out
    assert not (tmp_path / "samples.png").exists()
    assert (tmp_path / "loss.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weighting", "simpel"], "unknown weighting 'simpel'"),
        (["--set", "learnig_rate=1"], "did you mean 'learning_rate'"),
        (["--set", "schedule=cosine"], "text in quotes"),
        (["--data", "digit"], "did you mean digits"),
        (["--config", "absent.toml"], "does not exist"),
        (["--resume"], "leave --resume out"),
        (["--steps", "many"], "not a whole number"),
        (["--stepz", "3"], "--steps"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_2(tmp_path, capsys, words, message):
    assert main(["train", *words, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_folder_with_a_run_is_not_overwritten(tmp_path, capsys):
    assert main(["train", *TINY, "--steps", "1", "--out", str(tmp_path)]) == 0
    assert main(["train", *TINY, "--steps", "1", "--out", str(tmp_path)]) == 2
    assert "already holds a run" in capsys.readouterr().err


LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def _together(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAUNCHER, "-m", "bench", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_torchrun_with_two_processes_gives_the_losses_of_one(tmp_path):
    words = ["train", *TINY, "--steps", "3", "--precision", "float64"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    result = _together(*words, "--out", str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("3 steps, loss") == 1
    sheets = [(tmp_path / name / "samples.png").read_bytes() for name in ("one", "two")]
    assert sheets[0] == sheets[1]  # each process drew half of the pictures
    one, two = ([float(v) for v in losses(tmp_path / name)] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-10)


def test_torchrun_with_two_processes_gives_the_bound_of_one(tmp_path):
    assert main(["train", *TINY, "--steps", "3", "--out", str(tmp_path)]) == 0
    words = ["elbo", str(tmp_path / "checkpoint.pt"), "--evaluations", "99", "--json"]
    assert main([*words, str(tmp_path / "one.json")]) == 0
    result = _together(*words, str(tmp_path / "two.json"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("bits/dim") == 1
    one, two = (
        json.loads((tmp_path / f"{name}.json").read_text())["bits_per_dim"]
        for name in ("one", "two")
    )
    assert two == pytest.approx(one, rel=1e-5)


def test_under_torchrun_a_mistake_is_one_line_from_one_process(tmp_path):
    result = _together("train", "--weighting", "simpel", "--out", str(tmp_path))
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if line.startswith("ddpm-bench:")]
    assert len(said) == 1
    assert "unknown weighting 'simpel'" in said[0]
