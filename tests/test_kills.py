"""A run that is killed and resumed has the bits of one that is not; `python -m tests.kills` does it for twenty objectives."""

import random

import pytest

from ddpm_ref.config import TrainConfig
from tests.kills import _BASE, OBJECTIVES, trial


@pytest.mark.parametrize("name", ["learned variance, loss-aware t"])
def test_a_killed_run_resumes_to_the_bit(tmp_path, name):  # five starts of an interpreter: 20 s
    assert trial(name, tmp_path, random.Random(1), kills=1) == ""


def test_there_are_twenty_and_each_can_be_configured():
    assert len(OBJECTIVES) == 20
    for settings in OBJECTIVES.values():
        text = "\n".join(s for s in (*_BASE, *settings) if "." not in s.split("=")[0])
        later = {
            s.split("=")[0]: s for s in text.splitlines()
        }  # a later setting replaces an earlier one
        assert TrainConfig.from_toml("\n".join(later.values()))
