"""The examples in `--help` run as they are printed, in a folder that has the files they name."""

import importlib
import shlex

import numpy as np
import pytest

from bench.__main__ import main

pytestmark = pytest.mark.any_torch


def examples(command: str) -> list[list[str]]:
    """The words of every example of a command."""
    text = importlib.import_module(f"bench.commands.{command}").HELP
    lines = [line.strip() for line in text.splitlines() if line.startswith("  ddpm-bench ")]
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [*examples("schedule"), *examples("weights")], ids=" ".join)
def test_schedule_and_weights(words, folder, capsys) -> None:
    (folder / "scheduler_config.json").write_text(
        '{"_class_name": "DDPMScheduler", "beta_schedule": "linear"}'
    )
    assert main(words) == 0
    assert capsys.readouterr().out


@pytest.mark.peers
def test_a_saved_model_and_ones_own_images(folder, capsys) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is an optional peer")
    from PIL import Image

    from tests.test_diffusers_models import saved, unet

    saved(folder / "my_pipeline", unet(), diffusers.DDPMScheduler(5))
    (folder / "my_images").mkdir()
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "my_images" / f"{index}.png")
    (words,) = [each for each in examples("elbo") if "hf:my_pipeline" in each]
    assert main(words) == 0
    assert "first step: 0" in capsys.readouterr().out
