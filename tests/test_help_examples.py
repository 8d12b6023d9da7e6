"""The examples in `--help` run as they are printed, in a folder that has the files they name.

What takes minutes is not run: for each command at least one example is, and the rest has to be understood.
"""

import argparse
import contextlib
import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]


def module(command: str):
    return importlib.import_module(f"bench.commands.{command.replace('-', '_')}")


def parser(command: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(exit_on_error=False)
    module(command).add_arguments(made)
    return made


def examples(command: str) -> list[list[str]]:
    """The words of every example of a command; two spaces or more end it, and a remark follows."""
    text = module(command).HELP + (parser(command).epilog or "")
    lines = [line.strip() for line in text.splitlines() if line.startswith("  ddpm-bench ")]
    return [shlex.split(re.split(r" {2,}", line)[0])[1:] for line in lines]


EVERY = [pytest.param(words, id=" ".join(words)) for name in COMMANDS for words in examples(name)]

MINUTES = {
    "run --preset tiny --only verify --out checked",
    "bound --price runs/digits/checkpoint.pt",
    "loss runs/a/checkpoint.pt runs/b/checkpoint.pt --weighting min_snr:5 --evaluations 20000",
    "elbo runs/digits/checkpoint.pt --evaluations 20000 --json bound.json --out bound.png",
    "throughput --only contest --shapes 16x3x32x32 --rounds 5 --threads 1",
    "run",
    "run --claims law-linear --out settled",
    "verify",
    "verify --against diffusers",
    "verify --against fid",
    "verify --against improved-diffusion:PATH",
    "train --data digits --out runs/digits",
    "train --config my.toml --set network_options.base=32",
    "train --out runs/digits --steps 4000 --resume",
    "bound --grid",
    "estimator runs/digits/checkpoint.pt --data digits",
    "compare --by torch ddpm-bench-report/records",
    "throughput --only suite --select objective --seconds 0.1 --threads 1",
    "optimal-loss --data fashion-mnist:16 --subset 4096 --space eps --picture least.png",
    "throughput",
    "noise-test",
    "releases .tox",
    "releases old/bin/python new/bin/python --rounds 4 --out compared",
}
"""Minutes, a download, a checkout or two releases of torch: these are parsed."""
NO_MACHINE = {"gpu-visit --out records"}
"""Runs everywhere, and says so with status 1 where there is no GPU."""


def test_every_command_has_an_example_that_is_run_here() -> None:
    assert {name for name in COMMANDS if not examples(name)} == set()
    said = {" ".join(words) for name in COMMANDS for words in examples(name)}
    assert said >= MINUTES | NO_MACHINE
    run = {text.partition(" ")[0] for text in said - MINUTES}
    # tests/test_run_command.py, test_releases.py, test_throughput_suite.py and test_bound_commands.py run these on less.
    assert set(COMMANDS) - run == {"run", "releases", "throughput", "estimator"}


@pytest.mark.parametrize("words", EVERY)
def test_is_understood(words: list[str]) -> None:
    parser(words[0]).parse_args(words[1:])


FACTORY = """
import torch
def make():
    return lambda x, t: torch.zeros_like(x)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with every file that an example names."""
    here = tmp_path_factory.mktemp("examples")
    with contextlib.chdir(here):
        _fill()
    return here


def _fill() -> None:
    Path("scheduler_config.json").write_text(
        '{"_class_name": "DDPMScheduler", "beta_schedule": "linear"}'
    )
    Path("my_model.py").write_text(FACTORY)
    for name, T in (("digits", 10), ("a", 1000)):
        words = ["--data", "digits", "--steps", "2", "--set", f"T={T}", "--out", f"runs/{name}"]
        assert main(["train", *words]) == 0
    records = sorted((ROOT / "reports" / "repositories").glob("*.json"))[:1]
    for place in ("records/before", "records/after", "ddpm-bench-report/records"):
        Path(place).mkdir(parents=True)
        shutil.copy(records[0], place)
    for name in ("old.json", "new.json"):
        shutil.copy(records[0], name)


@pytest.fixture
def folder(files, monkeypatch) -> Path:
    monkeypatch.chdir(files)
    return files


RUN = [case for case in EVERY if case.id not in MINUTES and "hf:" not in case.id]


@pytest.mark.parametrize("words", RUN)
def test_runs_as_printed(words, folder, capsys) -> None:
    if "my_adapter.py:MyDiffusion" in words and not Path("my_adapter.py").exists():
        assert main(["verify", "--init", "my_adapter.py"]) == 0
    allowed = (0, 1) if " ".join(words) in NO_MACHINE and not torch.cuda.is_available() else (0,)
    assert main(words) in allowed
    assert capsys.readouterr().out or allowed == (0, 1)


@pytest.mark.peers
def test_a_saved_model_and_ones_own_images(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    diffusers = pytest.importorskip("diffusers", reason="diffusers is an optional peer")
    from PIL import Image

    from tests.test_diffusers_models import saved, unet

    saved(Path("my_pipeline"), unet(), diffusers.DDPMScheduler(5))
    Path("my_images").mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(picture).save(Path("my_images") / f"{index}.png")
    (words,) = [each for each in examples("elbo") if "hf:my_pipeline" in each]
    assert main(words) == 0
    assert "first step: 0" in capsys.readouterr().out
