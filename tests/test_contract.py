"""Every public name exists, is documented, and keeps the signature that the outside relies on."""

import inspect

import pytest

import ddpm_ref
from ddpm_ref import NoiseStream, Schedule, linear_schedule

FUNCTIONS = {
    "linear_schedule": ["T", "beta_start", "beta_end"],
    "cosine_schedule": ["T", "s", "max_beta"],
    "sigmoid_schedule": ["T", "start", "end", "tau", "max_beta"],
    "schedule_from_log_snr": ["log_snr"],
    "rescale_to_zero_terminal_snr": ["schedule"],
    "q_sample": ["x0", "t", "schedule", "noise"],
    "q_posterior": ["x0", "x_t", "t", "schedule"],
    "fused_q_sample": ["x0", "t", "schedule", "stream", "step", "first_index", "provider"],
    "q_sample_providers": [],
    "target": ["parameterization", "x0", "eps", "t", "schedule"],
    "convert": ["prediction", "x_t", "t", "schedule", "source", "to"],
    "weight": ["weighting", "t", "schedule", "parameterization"],
    "loss": ["prediction", "x0", "eps", "t", "schedule", "parameterization", "weighting"],
    "min_snr": ["gamma"],
    "p2": ["k", "gamma"],
    "gaussian_kl": ["mean1", "log_var1", "mean2", "log_var2"],
    "discretized_gaussian_log_likelihood": ["x", "mean", "log_scale", "levels"],
    "prior_kl": ["x0", "schedule"],
    "rank_limited_excess": ["eigenvalues", "rank", "t", "schedule", "parameterization", "skip"],
    "elbo": [
        *("model", "x0", "schedule", "parameterization", "variance", "decoder"),
        *("levels", "seed", "draws"),
    ],
    "estimate_elbo": ["model", "data", "schedule", "evaluations", "parameterization", "variance"],
    "validation_loss": [
        *("model", "data", "schedule", "parameterization", "weighting", "evaluations", "seed"),
    ],
    "train": ["config"],
    "sample": [
        *("model", "shape", "schedule", "parameterization", "sampler", "variance"),
        *("steps", "eta", "clip", "seed"),
    ],
}

CLASSES = {
    "Schedule": [
        *("T", "beta", "alpha_bar", "one_minus_alpha_bar", "log_snr", "posterior_variance"),
        *("timesteps", "respaced"),
    ],
    "Gaussian": ["mean", "log_var"],
    "NoiseStream": ["normal"],
    "ElboTerms": ["prior", "diffusion", "reconstruction", "total", "bits_per_dim"],
    "ElboEstimate": ["bits_per_dim", "stderr", "evaluations"],
    "LossEstimate": ["value", "stderr", "evaluations", "paired"],
    "GaussianOracle": ["denoise", "model", "log_prob", "expected_elbo", "entropy"],
    "MixtureOracle": ["denoise", "model", "log_prob"],
    "EmpiricalOracle": ["denoise", "model"],
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_take_what_is_promised(name: str) -> None:
    function = getattr(ddpm_ref, name)
    names = list(inspect.signature(function).parameters)
    missing = [p for p in FUNCTIONS[name] if p not in names]
    assert not missing, f"{name} lacks {missing}"
    assert names[: len(FUNCTIONS[name])][:2] == FUNCTIONS[name][:2]
    assert inspect.getdoc(function), f"{name} has no docstring"


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_have_what_is_promised(name: str) -> None:
    cls = getattr(ddpm_ref, name)
    fields = getattr(cls, "__dataclass_fields__", {})
    missing = [a for a in CLASSES[name] if not hasattr(cls, a) and a not in fields]
    assert not missing, f"{name} lacks {missing}"
    assert inspect.getdoc(cls), f"{name} has no docstring"


@pytest.mark.parametrize("name", ddpm_ref.__all__)
def test_everything_public_is_documented(name: str) -> None:
    thing = getattr(ddpm_ref, name)
    if callable(thing):
        assert inspect.getdoc(thing)


def test_registries_hold_the_promised_names() -> None:
    assert {"eps", "x0", "v", "score", "mean"} <= set(ddpm_ref.PARAMETERIZATIONS)
    promised = {"simple", "simple_x0", "simple_v", "elbo", "truncated_snr", "min_snr", "p2"}
    assert promised == set(ddpm_ref.WEIGHTINGS)
    assert {"linear", "cosine", "sigmoid"} <= set(ddpm_ref.SCHEDULES)
    assert "eager" in ddpm_ref.q_sample_providers()


def test_frozen_things_are_frozen() -> None:
    for thing in (linear_schedule(3), NoiseStream(0), ddpm_ref.min_snr()):
        with pytest.raises(AttributeError):
            thing.seed = 1
    assert isinstance(linear_schedule(3), Schedule)


def test_no_public_name_is_alpha_or_snr_alone() -> None:
    assert not {"alpha", "snr", "alphas", "SNR"} & set(ddpm_ref.__all__)
