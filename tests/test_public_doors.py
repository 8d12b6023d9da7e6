"""What every public function says to an argument of the wrong kind: the type, the rule and the usual fix."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ddpm_ref import (
    EmpiricalOracle,
    GaussianOracle,
    MixtureOracle,
    NoiseStream,
    best_skip,
    convert,
    crossover,
    elbo,
    estimate_elbo,
    fused_q_sample,
    linear_schedule,
    loss,
    optimal_loss,
    output_skip,
    prior_kl,
    q_posterior,
    q_sample,
    rank_limited_excess,
    rescale_to_zero_terminal_snr,
    sample,
    target,
    validation_loss,
    weight,
    wiener_gain,
)
from ddpm_ref.sampler import SamplerRule, step

pytestmark = pytest.mark.any_torch

# ---------------------------------------------------------------- schedules

NO_SCHEDULES = [
    pytest.param([0.1, 0.2], id="list"),
    pytest.param(SimpleNamespace(T=4, betas=torch.ones(4)), id="another library's"),
    pytest.param(None, id="None"),
    pytest.param(linear_schedule, id="constructor"),
]


def shrink(x_t, t):
    return 0.5 * x_t


def doors():
    """Every public function that takes a schedule, as a function of the schedule alone."""
    x, t = torch.zeros(2, 3), torch.tensor([1, 4])
    exact = GaussianOracle(torch.zeros(3), torch.eye(3))
    line = MixtureOracle([1.0], [[0.0]], [[[1.0]]])
    continuous = {"decoder": "gaussian"}
    return {
        "q_sample": lambda s: q_sample(x, t, s, x),
        "fused_q_sample": lambda s: fused_q_sample(x, t, s, NoiseStream(0), step=1),
        "q_posterior": lambda s: q_posterior(x, x, t, s),
        "target": lambda s: target("v", x, x, t, s),
        "convert": lambda s: convert(x, x, t, s, source="v", to="v"),
        "weight": lambda s: weight("simple", t, s, parameterization="eps"),
        "loss": lambda s: loss(x, x, x, t, s, parameterization="eps", weighting="simple"),
        "prior_kl": lambda s: prior_kl(x, s),
        "rank_limited_excess": lambda s: rank_limited_excess(torch.ones(3), 1, t, s, skip=0.5),
        "optimal_loss": lambda s: optimal_loss(x, t, s),
        "best_skip": lambda s: best_skip(torch.ones(3), 1, t, s),
        "output_skip": lambda s: output_skip("v", t, s),
        "wiener_gain": lambda s: wiener_gain(1.0, t, s),
        "crossover": lambda s: crossover(0.0, 1.0, t, s),
        "elbo": lambda s: elbo(shrink, x, s, **continuous),
        "estimate_elbo": lambda s: estimate_elbo(shrink, x, s, evaluations=64, **continuous),
        "validation_loss": lambda s: validation_loss(
            shrink, x, s, parameterization="x0", weighting="simple", evaluations=16
        ),
        "sample": lambda s: sample(shrink, (2, 3), s, parameterization="eps"),
        "sample, respaced": lambda s: sample(shrink, (2, 3), s, parameterization="eps", steps=2),
        "step": lambda s: step(x, x, t, s, parameterization="eps", rule=SamplerRule()),
        "denoise": lambda s: exact.denoise(x, t, s),
        "model": lambda s: exact.model(s),
        "expected_elbo": lambda s: exact.expected_elbo(s),
        "expected_elbo of a mixture": lambda s: line.expected_elbo(s),
        "model_log_prob": lambda s: exact.model_log_prob(x, s),
        "rescale": lambda s: rescale_to_zero_terminal_snr(s),
    }


@pytest.mark.parametrize("schedule", NO_SCHEDULES)
@pytest.mark.parametrize("door", doors())
def test_what_is_no_schedule_is_refused_with_its_type_and_the_remedy(door, schedule) -> None:
    doors()[door](linear_schedule(4))  # the call is right but for the schedule
    with pytest.raises(
        TypeError, match=r"schedule is a \w+; .*linear_schedule\(T\).*schedule_from_beta"
    ):
        doors()[door](schedule)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", [["eps"], ("eps",), 3, None, b"eps"], ids=repr)
def test_what_is_no_name_is_refused_with_its_type(name) -> None:
    schedule, kind = linear_schedule(3), type(name).__name__
    t, x0, eps = torch.tensor([1, 3]), torch.zeros(2, 3), torch.ones(2, 3)
    oracle = GaussianOracle(torch.zeros(3), torch.eye(3))
    calls = {
        "target": lambda: target(name, x0, eps, t, schedule),
        "source": lambda: convert(x0, eps, t, schedule, source=name, to="x0"),
        "to": lambda: convert(x0, eps, t, schedule, source="x0", to=name),
        "weight": lambda: weight("simple", t, schedule, parameterization=name),
        "weighting": lambda: weight(name, t, schedule, parameterization="eps"),
        "loss": lambda: loss(x0, x0, eps, t, schedule, parameterization=name, weighting="simple"),
        "elbo": lambda: elbo(torch.sin, x0, schedule, parameterization=name, decoder="gaussian"),
        "decoder": lambda: elbo(torch.sin, x0, schedule, decoder=name),
        "output": lambda: output_skip(name, t, schedule),
        "sample": lambda: sample(torch.sin, (2, 3), schedule, parameterization=name),
        "sampler": lambda: sample(
            torch.sin, (2, 3), schedule, parameterization="eps", sampler=name
        ),
        "oracle": lambda: oracle.model(schedule, name),
        "provider": lambda: fused_q_sample(x0, t, schedule, NoiseStream(0), step=1, provider=name),
    }
    for call in calls.values():
        with pytest.raises(TypeError, match=rf" is a {kind}; pass one name as a str: "):
            call()


# ---------------------------------------------------------------- what a model returns

OUTPUTS = {
    "a tuple of three": (lambda x, t: (x, x, x), ValueError, r"tuple of 3; .*\(prediction, log_variance\).*\[0\]"),
    "a tuple of one": (lambda x, t: (x,), ValueError, r"tuple of 1"),
    "an empty tuple": (lambda x, t: (), ValueError, r"tuple of 0"),
    "a list": (lambda x, t: [x, x], TypeError, r"prediction is a list; a tensor"),
    "None": (lambda x, t: None, TypeError, r"prediction is a NoneType"),
    "an array": (lambda x, t: x.numpy(), TypeError, r"prediction is a ndarray"),
    "an object": (lambda x, t: SimpleNamespace(sample=x), TypeError, r"SimpleNamespace; .*model\(x, t\)\.sample"),
    "another shape": (lambda x, t: x[:, :1], ValueError, r"prediction has shape \[\d+, 1\] but x_t has"),
    "a shape that broadcasts": (lambda x, t: x[:1], ValueError, r"prediction has shape \[1, 3\]"),
    "integers": (lambda x, t: x.long(), TypeError, r"prediction has dtype torch.int64"),
    "complex numbers": (lambda x, t: x + 0j, TypeError, r"prediction has dtype torch.complex"),
    "another device": (lambda x, t: x.to("meta"), ValueError, r"prediction is on meta but x_t is on cpu"),
    "a log-variance of another shape": (lambda x, t: (x, x[:1]), ValueError, r"log_variance has shape \[1, 3\]"),
    "a log-variance that is a number": (lambda x, t: (x, -1.0), TypeError, r"log_variance is a float"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_model_that_returns_something_else_is_told_so_at_every_door(name):
    model, error, message = OUTPUTS[name]
    schedule, x0 = linear_schedule(4), torch.zeros(2, 3)
    bound = {"decoder": "gaussian"}
    with pytest.raises(error, match=message):
        sample(model, (2, 3), schedule, parameterization="eps")
    with pytest.raises(error, match=message):
        elbo(model, x0, schedule, **bound)
    with pytest.raises(error, match=message):
        estimate_elbo(model, x0, schedule, evaluations=64, **bound)


def test_what_cannot_be_called_is_no_model():
    schedule, x0 = linear_schedule(4), torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"model is a dict; .*model\(x_t, t\)"):
        sample({}, (2, 3), schedule, parameterization="eps")
    with pytest.raises(TypeError, match="model is a dict"):
        elbo({}, x0, schedule, decoder="gaussian")


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize("name", ["draws", "batch_size", "first_index"])
@pytest.mark.parametrize("value", [1.5, 2.0, True, "1", None], ids=repr)
def test_what_counts_is_a_whole_number(name, value) -> None:
    with pytest.raises(TypeError, match=rf"{name} = {value!r} is a \w+; .*pass an int, {name}="):
        elbo(shrink, torch.zeros(2, 3), linear_schedule(4), decoder="gaussian", **{name: value})


def test_what_counts_may_be_an_integer_of_another_library() -> None:
    x0, schedule = torch.zeros(2, 3), linear_schedule(4)
    draws = elbo(shrink, x0, schedule, decoder="gaussian", draws=np.int64(2))
    assert torch.equal(draws.total, elbo(shrink, x0, schedule, decoder="gaussian", draws=2).total)


@pytest.mark.parametrize(
    ("name", "value", "least"), [("draws", 0, 1), ("batch_size", -3, 1), ("first_index", -1, 0)]
)
def test_counts_have_a_least(name, value, least) -> None:
    with pytest.raises(ValueError, match=rf"{name} = {value}; it must be at least {least}"):
        elbo(shrink, torch.zeros(2, 3), linear_schedule(4), decoder="gaussian", **{name: value})


# ---------------------------------------------------------------- dtypes of the loss

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("of_data", FLOATS, ids=str)
@pytest.mark.parametrize("of_prediction", FLOATS, ids=str)
@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_a_loss_of_mixed_dtypes_is_computed_in_the_widest(
    parameterization, of_prediction, of_data
) -> None:
    """The float64 formula on the very numbers given; a float64 partner is never rounded, and neither is a target to bf16."""
    generator = torch.Generator().manual_seed(2)
    said, x0, eps = torch.randn(3, 5, 7, 11, generator=generator).double()
    t, schedule = torch.tensor([1, 2, 9, 17, 23]), linear_schedule(23)
    said, x0, eps = said.to(of_prediction), x0.to(of_data), eps.to(of_data)
    found = loss(
        said, x0, eps, t, schedule, parameterization=parameterization, weighting="simple_v"
    )
    signal, sigma = schedule.alpha_bar[t].sqrt(), schedule.one_minus_alpha_bar[t].sqrt()
    signal, sigma = signal.view(-1, 1, 1), sigma.view(-1, 1, 1)
    v = signal * eps.double() - sigma * x0.double()
    wanted = eps.double() if parameterization == "eps" else v
    factor = schedule.alpha_bar[t].reciprocal() if parameterization == "eps" else 1.0
    exact = factor * (said.double() - wanted).square().mean((1, 2))
    wide = torch.float64 in (of_prediction, of_data)
    assert found.dtype == (torch.float64 if wide else torch.float32)
    # Rounding of a mean of 77 squares; a target rounded to float32 (bf16) is 1e-8 (4e-3) off.
    torch.testing.assert_close(found.double(), exact, rtol=1e-12 if wide else 2e-6, atol=0)


def test_a_loss_under_autocast_is_that_outside() -> None:
    layer, x0, t = torch.nn.Linear(7, 7), torch.randn(5, 7), torch.tensor([1, 2, 3, 4, 4])
    options = {"parameterization": "v", "weighting": "min_snr"}
    with torch.autocast("cpu", torch.bfloat16):
        said = layer(x0)
        inside = loss(said, x0, -x0, t, linear_schedule(4), **options)
    assert said.dtype == torch.bfloat16
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(said, x0, -x0, t, linear_schedule(4), **options))


# ---------------------------------------------------------------- exact models


def test_data_of_whole_numbers_are_refused_and_parameters_are_not() -> None:
    """A mean of 2 is 2 in any dtype; a grey level of 2 is a number on [-1, 1] that only the caller knows."""
    levels = torch.tensor([[0, 255], [7, 9]])
    for make in (EmpiricalOracle, GaussianOracle.fit):
        with pytest.raises(TypeError, match=r"data has dtype torch.int64; .*127\.5"):
            make(levels)
    exact = GaussianOracle(torch.tensor([2, -1]), torch.tensor([[2, 1], [1, 2]]))
    floating = GaussianOracle(torch.tensor([2.0, -1.0]), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    x0 = torch.tensor([[0.5, 0.25]])
    assert torch.equal(exact.log_prob(x0), floating.log_prob(x0))
    mixed = MixtureOracle([1], [[2, -1]], [[[2, 1], [1, 2]]])
    torch.testing.assert_close(mixed.log_prob(x0), floating.log_prob(x0))
    for call in (exact.log_prob, lambda x: exact.expected_elbo(linear_schedule(3), x0=x)):
        with pytest.raises(TypeError, match="x0 has dtype torch.int64"):
            call(x0.long())


def test_parameters_are_real_numbers() -> None:
    mean, covariance = torch.zeros(2), torch.eye(2)
    for name, make in {
        "mean": lambda p: GaussianOracle(p(mean), covariance),
        "covariance": lambda p: GaussianOracle(mean, p(covariance)),
        "weights": lambda p: MixtureOracle(p(torch.ones(1)), mean[None], covariance[None]),
        "means": lambda p: MixtureOracle(torch.ones(1), p(mean[None]), covariance[None]),
        "covariances_0": lambda p: MixtureOracle(torch.ones(1), mean[None], [p(covariance)]),
    }.items():
        with pytest.raises(TypeError, match=rf"{name} has dtype torch.complex64; .*\.real"):
            make(lambda value: value + 0j)
        with pytest.raises(TypeError, match=rf"{name} is a str that holds no array of numbers"):
            make(lambda value: "zero")
        with pytest.raises(ValueError, match=rf"{name}\[.*every value must be finite"):
            make(lambda value: value / 0)


def test_a_distribution_needs_examples() -> None:
    for make in (EmpiricalOracle, GaussianOracle.fit):
        with pytest.raises(ValueError, match="at least one example"):
            make(torch.zeros(0, 2))
        with pytest.raises(TypeError, match="data is a list"):
            make([[1.0, 2.0]])


def test_an_oracle_asks_for_a_tensor_of_steps() -> None:
    model = GaussianOracle(torch.zeros(3), torch.eye(3)).model(linear_schedule(4), "eps")
    with pytest.raises(TypeError, match=r"timestep is a int; .*torch\.full"):
        model(torch.zeros(2, 3), 3)
