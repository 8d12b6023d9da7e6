"""Inside a tox environment, the torch is the one that the environment's name says."""

import os
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TOX_ENV = os.environ.get("DDPM_BENCH_TOX_ENV", "")


@pytest.mark.skipif(not TOX_ENV, reason="not run by tox: no environment name to compare with")
def test_torch_is_the_one_in_the_name() -> None:
    assert "torch" + ".".join(torch.__version__.split(".")[:2]) == TOX_ENV


def test_the_table_pairs_every_torch_with_its_torchvision() -> None:
    """torchvision's minor version has been torch's plus 15 since torch 2.0."""
    text = (ROOT / "tox.ini").read_text()
    torch_minor = re.findall(r"torch(2\.\d+): torch==(2\.\d+)\.\*", text)
    vision_minor = dict(re.findall(r"torch(2\.\d+): torchvision==(0\.\d+)\.\*", text))
    assert [name for name, _ in torch_minor] == list(vision_minor)
    for name, pinned in torch_minor:
        assert name == pinned
        assert int(vision_minor[name].split(".")[1]) == int(name.split(".")[1]) + 15
    matrix = re.search(r"matrix = (.*)", text)
    assert matrix is not None
    assert matrix[1].split(", ") == [f"torch{name}" for name, _ in torch_minor]


def test_the_oldest_of_the_table_is_the_oldest_that_is_promised() -> None:
    promised = re.search(r'"torch>=(2\.\d+)"', (ROOT / "pyproject.toml").read_text())
    oldest = re.search(r"torch==(2\.\d+)\.\*", (ROOT / "tox.ini").read_text())
    assert promised is not None
    assert oldest is not None
    assert promised[1] == oldest[1]


def test_tox_knows_every_environment_of_its_matrix() -> None:
    """tox refuses a name that no section and no env_list has, also where a label lists it."""
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    lines = (r"^ +matrix = (.+)$", r"^env_list = (.+)$", r"^\[testenv:torch\{(.+)\}\]$")
    found = [re.findall(line, text, re.MULTILINE) for line in lines]
    assert [len(one) for one in found] == [1, 1, 1]
    label, listed, section = (one[0] for one in found)
    known = {f"torch{release}" for release in section.split(",")}
    assert set(label.split(", ")) == known | ({*listed.split(", ")} - {"lint"})
