"""Configurations: a TOML round trip that loses nothing, and errors that name the nearest key."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_ref.config import TRAINING_SCHEDULES, TrainConfig
from ddpm_ref.schedule import log_snr_schedule

FULL = TrainConfig(
    data='folder:C:\\pictures\\"mine"\x7fé',
    seed=2**40 + 1,
    schedule="cosine",
    T=37,
    zero_terminal_snr=True,
    parameterization="v",
    weighting="min_snr",
    normalize_weights=True,
    steps=11,
    batch_size=7,
    learning_rate=1e-05,
    clip_factor=math.inf,
    timesteps="low-discrepancy",
    precision="float64",
    schedule_options={"s": 0.01, "max_beta": 0.99},
    weighting_options={"gamma": 3.5},
    network_options={"base": 8, "multipliers": [1, 2], "attention": ()},
)


@pytest.mark.parametrize("config", [TrainConfig(), FULL], ids=["default", "full"])
def test_toml_round_trip(config):
    assert TrainConfig.from_toml(config.to_toml()) == config


@settings(max_examples=60, deadline=None)
@given(
    data=st.text(st.characters(exclude_categories=("Cs",))),
    rate=st.floats(0, 1e300),
    seed=st.integers(0, 2**63 - 1),
)
def test_toml_round_trip_of_any_text_and_number(data, rate, seed):
    config = TrainConfig(data=data, learning_rate=rate, seed=seed)
    assert TrainConfig.from_toml(config.to_toml()) == config


def test_what_is_not_mentioned_keeps_its_default():
    assert TrainConfig.from_toml("steps = 5") == TrainConfig(steps=5)


def test_a_whole_number_serves_where_a_fraction_is_meant():
    assert TrainConfig.from_toml("clip_factor = 4").clip_factor == 4.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learnig_rate = 0.1", r"unknown configuration key 'learnig_rate'.*did you mean 'learning_rate'"),
        ('schedule = "cosin"', r"unknown schedule 'cosin'.*did you mean 'cosine'"),
        ('weighting = "simpel"', r"unknown weighting 'simpel'.*'simple'"),
        ('parameterization = "noise"', r"unknown parameterization 'noise'; known: eps"),
        ('network = "u-net"', r"unknown network 'u-net'.*'unet'"),
        ("[network_options]\nbas = 3", r"option of network 'unet' 'bas'.*'base'"),
        ("[schedule_options]\nT = 3", r"option of schedule 'linear' 'T'"),
        ("[weighting_options]\ngamma = 3", r"option of weighting 'simple' 'gamma'"),
        ("steps = 0", r"steps = 0.*at least 1"),
        ("learning_rate = nan", r"learning_rate = nan"),
        ("learning_rate = inf", r"learning_rate = inf.*finite"),
        ("ema_decay = 1.0", r"ema_decay = 1.0.*\[0, 1\)"),
        ("clip_factor = 0.5", r"clip_factor = 0.5.*at least 1"),
        ('timesteps = "sobol"', r"unknown timesteps 'sobol'"),
    ],
)  # fmt: skip
def test_wrong_values_name_the_rule_and_the_nearest_name(text, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_toml(text)


@pytest.mark.parametrize(
    "text", ["steps = 1.5", 'seed = "3"', "data = 3", "T = true", "network_options = 3"]
)
def test_wrong_types_name_the_type(text):
    with pytest.raises(TypeError, match=r"must be|table of options"):
        TrainConfig.from_toml(text)


def test_options_reach_their_constructors():
    weighting = FULL.make_weighting()
    t = torch.tensor([1])
    schedule = FULL.make_schedule()
    floor = weighting.log_weight(torch.tensor([10.0], dtype=torch.float64), t, schedule)
    assert floor.item() == pytest.approx(math.log(3.5), rel=1e-12)
    assert schedule.T == 37
    assert schedule.log_snr[-1] == -math.inf
    assert FULL.make_network(3)(torch.zeros(1, 3, 4, 4), t).shape == (1, 3, 4, 4)


def test_every_named_schedule_can_be_made():
    for name in TRAINING_SCHEDULES:
        assert TrainConfig(schedule=name, T=13, parameterization="v").make_schedule().T == 13


def test_the_even_schedule_has_the_same_range_for_every_T():
    for T in (2, 7, 101):
        log_snr = log_snr_schedule(T, 8.0, -6.0).log_snr[1:]
        assert (log_snr[0], log_snr[-1]) == (8.0, -6.0)
        torch.testing.assert_close(
            log_snr.diff(), torch.full((T - 1,), -14.0 / (T - 1), dtype=torch.float64)
        )
    with pytest.raises(ValueError, match="T = 1"):
        log_snr_schedule(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider": "nativ"}, "did you mean 'native'"),
        ({"device": "cudaa"}, "no such device"),
        ({"seed": 2**63}, "seed"),
        ({"weighting": "min_snr", "weighting_options": {"gamma": -1.0}}, "gamma"),
        ({"schedule_options": {"beta_end": 2.0}}, "outside"),
        ({"T": 1, "zero_terminal_snr": True}, "T >= 2"),
        ({"zero_terminal_snr": True, "weighting": "elbo"}, "infinite in eps space"),
    ],
)
def test_what_cannot_be_made_is_refused_at_construction(change, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**change)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = = 3", r"line 1.*'a = = 3'"),
        ("steps = 5\n\nseed = oops\n", r"line 3.*'seed = oops'"),
        ("steps = 5\nnetwork_options = [1,\n\n", r"line 2.*'network_options = \[1,'"),
        ("steps", r"line 1.*'steps'"),
        ("steps = 1\nsteps = 2\n", r"line 2.*'steps = 2'"),
    ],
)
def test_what_is_not_toml_is_refused_with_its_line(text, place):
    with pytest.raises(ValueError, match=rf"this is not TOML: .*{place}; write KEY = VALUE"):
        TrainConfig.from_toml(text)


def test_a_configuration_is_text():
    with pytest.raises(TypeError, match=r"is a bytes; .*read_text"):
        TrainConfig.from_toml(b"steps = 5")
