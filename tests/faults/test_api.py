"""The right value, or an error that names value, rule and usual fix: what an attacker of the Python API found."""

import math

import pytest
import torch
from mpmath import mp as default
from torch import Tensor

from bench.metrics.frechet import Pca, measure
from ddpm_ref import (
    EmpiricalOracle,
    GaussianOracle,
    NoiseStream,
    convert,
    cosine_schedule,
    discretized_gaussian_log_likelihood,
    elbo,
    estimate_elbo,
    fused_q_sample,
    gaussian_kl,
    linear_schedule,
    loss,
    min_snr,
    p2,
    prior_kl,
    q_posterior,
    q_sample,
    sample,
    schedule_from_beta,
    schedule_from_log_snr,
    sigmoid_schedule,
    target,
    weight,
)
from ddpm_ref.config import TrainConfig
from ddpm_ref.gaussian import Gaussian
from ddpm_ref.parameterization import PARAMETERIZATIONS
from ddpm_ref.sampler import SamplerRule, step
from ddpm_ref.trainer import train

mp = default.clone()
mp.dps = 50
mpf = mp.mpf

HUGE = 10**5000  # Python refuses to print it
SCHEDULE = linear_schedule(5)
T2 = torch.tensor([1, 5])


def halve(x_t: Tensor, t: Tensor) -> Tensor:
    return 0.5 * x_t


def batch_functions(x: Tensor, t: Tensor) -> dict:
    """Every public function of a batch, called with `x` for each of its tensors."""
    stream, exact = NoiseStream(0), {"decoder": "gaussian"}
    return {
        "q_sample": lambda: q_sample(x, t, SCHEDULE, x),
        "q_posterior": lambda: q_posterior(x, x, t, SCHEDULE),
        "fused_q_sample": lambda: fused_q_sample(x, t, SCHEDULE, stream, step=1),
        "target": lambda: target("v", x, x, t, SCHEDULE),
        "convert": lambda: convert(x, x, t, SCHEDULE, source="eps", to="v"),
        "loss": lambda: loss(x, x, x, t, SCHEDULE, parameterization="v", weighting="elbo"),
        "step": lambda: step(x, x, t, SCHEDULE, parameterization="eps", rule=SamplerRule()),
        "prior_kl": lambda: prior_kl(x, SCHEDULE),
        "elbo": lambda: elbo(halve, x, SCHEDULE, **exact),
        "estimate_elbo": lambda: estimate_elbo(halve, x, SCHEDULE, evaluations=64, **exact),
    }


@pytest.mark.parametrize("name", batch_functions(torch.zeros(2), T2))
@pytest.mark.parametrize("t", [torch.tensor([1]), torch.tensor(1)], ids=["[1]", "[]"])
def test_a_number_without_batch_is_refused(name: str, t: Tensor) -> None:
    with pytest.raises(ValueError, match=r"has shape \[\], expected \[B, \*dims\]"):
        batch_functions(torch.tensor(0.5), t)[name]()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("name", [*batch_functions(torch.zeros(2), T2), "kl", "fit", "empirical"])
def test_float8_is_refused_with_the_cast(name: str, dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3).to(dtype)
    doors = batch_functions(x, T2) | {
        "kl": lambda: gaussian_kl(x, x, x, x),
        "fit": lambda: GaussianOracle.fit(x),
        "empirical": lambda: EmpiricalOracle(x),
    }
    with pytest.raises(TypeError, match=r"float8_\w+ .*\.float\(\)"):
        doors[name]()


def test_sparse_tensors_are_refused_with_the_cast() -> None:
    x = torch.zeros(2, 3).to_sparse()
    with pytest.raises(TypeError, match=r"layout torch.sparse_coo; .*to_dense\(\)"):
        q_sample(x, T2, SCHEDULE, x)


@pytest.mark.parametrize("name", ["prior_kl", "elbo", "estimate_elbo", "decoder", "fit"])
def test_values_are_not_read_from_the_meta_device(name: str) -> None:
    x = torch.zeros(2, 3, device="meta")
    doors = batch_functions(x, T2) | {
        "decoder": lambda: discretized_gaussian_log_likelihood(x, x, x, 256),
        "fit": lambda: GaussianOracle.fit(x),
    }
    with pytest.raises(ValueError, match="is on the meta device, which keeps shapes and no values"):
        doors[name]()


def test_shapes_can_be_planned_on_the_meta_device() -> None:
    x, t = torch.zeros(2, 3, device="meta"), torch.ones(2, dtype=torch.int64, device="meta")
    found = loss(x, x, x, t, SCHEDULE, parameterization="v", weighting="min_snr")
    assert (found.device.type, found.shape) == ("meta", (2,))


# ---------------------------------------------------------------- one number and no number an example


@pytest.mark.parametrize("space", PARAMETERIZATIONS)
def test_the_loss_of_numbers_is_that_of_examples_of_one_number(space: str) -> None:
    x = torch.tensor([0.3, -0.7], dtype=torch.float64)
    arguments = {"parameterization": space, "weighting": "min_snr"}
    flat = loss(x, x + 0.1, x - 0.2, T2, SCHEDULE, **arguments)
    column = loss(*(v[:, None] for v in (x, x + 0.1, x - 0.2)), T2, SCHEDULE, **arguments)
    wanted = target(space, x + 0.1, x - 0.2, T2, SCHEDULE)
    factor = weight("min_snr", T2, SCHEDULE, parameterization=space)
    assert torch.equal(flat, column)
    assert torch.allclose(flat, factor * (x - wanted) ** 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(2, 0), (2, 3, 0)], ids=str)
def test_a_mean_over_no_numbers_is_refused(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"the mean over dims of no numbers is undefined"):
        loss(x, x, x, T2, SCHEDULE, parameterization="eps", weighting="simple")
    with pytest.raises(ValueError, match=r"at least one number in an example"):
        prior_kl(x, SCHEDULE)


# ---------------------------------------------------------------- integers of thousands of digits

HUGE_CALLS = {
    "T": lambda: linear_schedule(HUGE),
    "negative T": lambda: cosine_schedule(-HUGE),
    "T that no memory holds": lambda: sigmoid_schedule(10**18),
    "beta_start": lambda: linear_schedule(5, beta_start=HUGE),
    "beta_end": lambda: linear_schedule(5, beta_end=HUGE),
    "s": lambda: cosine_schedule(5, s=HUGE),
    "max_beta": lambda: cosine_schedule(5, max_beta=HUGE),
    "start": lambda: sigmoid_schedule(5, start=-HUGE),
    "tau": lambda: sigmoid_schedule(5, tau=HUGE),
    "timesteps": lambda: SCHEDULE.respaced([1, HUGE]),
    "beta": lambda: schedule_from_beta([0.1, HUGE]),
    "log_snr": lambda: schedule_from_log_snr([HUGE, 0.0]),
    "gamma": lambda: min_snr(HUGE),
    "k": lambda: p2(HUGE),
    "levels": lambda: discretized_gaussian_log_likelihood(*[torch.zeros(2)] * 3, HUGE),
    "seed": lambda: NoiseStream(HUGE),
    "step": lambda: NoiseStream(0).normal((2,), step=HUGE),
    "first_index": lambda: NoiseStream(0).normal((2,), step=0, first_index=-HUGE),
    "size": lambda: NoiseStream(0).normal((2, HUGE), step=0),
    "product of sizes": lambda: NoiseStream(0).normal((1 << 30, 1 << 30), step=0),
    "sample": lambda: sample(halve, (HUGE,), SCHEDULE, parameterization="eps"),
    "steps": lambda: sample(halve, (2,), SCHEDULE, parameterization="eps", steps=HUGE),
    "eta": lambda: SamplerRule("ddim", eta=HUGE),
    "clip": lambda: SamplerRule(clip=HUGE),
    "clip of the bound": lambda: elbo(halve, T2 / 5, SCHEDULE, decoder="gaussian", clip=HUGE),
    "draws": lambda: elbo(halve, T2 / 5, SCHEDULE, decoder="gaussian", draws=HUGE),
    "evaluations": lambda: estimate_elbo(halve, T2 / 5, SCHEDULE, evaluations=HUGE),
}


@pytest.mark.parametrize("name", HUGE_CALLS)
def test_huge_integers_are_refused_by_name_and_size(name: str) -> None:
    named = {"timesteps", "beta", "log_snr"}  # a row of them: by the row's name
    with pytest.raises((ValueError, TypeError)) as caught:
        HUGE_CALLS[name]()
    message = str(caught.value)
    assert name.split()[0] in message or " " in name or name in {"size", "sample"}
    assert len(message) < 300
    assert "2**" in message or "10,000,000" in message or name in named


def test_more_draws_than_the_noise_has_steps_for_are_refused_before_the_first() -> None:
    def model(x_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("called")

    with pytest.raises(ValueError, match=f"at most {(1 << 31) // 5}"):
        elbo(model, T2 / 5, SCHEDULE, decoder="gaussian", draws=10**12)


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("index", [-1, -6, 6, 1 << 40])
def test_a_table_is_not_read_from_its_end_or_beyond(index: int) -> None:
    with pytest.raises(ValueError, match=rf"t = {index} lies outside 0 … 5"):
        SCHEDULE.lookup("beta", torch.tensor([0, index]))
    with pytest.raises(ValueError, match=rf"t = {index} lies outside 1 … 5"):
        SCHEDULE.original_timesteps(torch.tensor([1, index]))


def test_step_zero_is_clean_data_and_no_step_of_a_model() -> None:
    assert SCHEDULE.lookup("beta", torch.tensor([0])).item() == 0
    with pytest.raises(ValueError, match="t = 0 lies outside 1 … 5"):
        SCHEDULE.original_timesteps(torch.tensor([0]))


@pytest.mark.parametrize("t", [torch.tensor([1.5]), torch.tensor([True]), 3, [1, 2]], ids=repr)
def test_a_table_is_read_at_integers_only(t: object) -> None:
    with pytest.raises(TypeError, match="step indices are integers|pass a tensor"):
        SCHEDULE.lookup("beta", t)
    with pytest.raises(TypeError, match="step indices are integers|pass a tensor"):
        SCHEDULE.original_timesteps(t)


@pytest.mark.parametrize("beta", ["0.1", None, [0.1, "x"], [[0.1], 0.2], [0.1j], torch.zeros(2, device="meta")], ids=repr)  # fmt: skip
@pytest.mark.parametrize("make", [schedule_from_beta, schedule_from_log_snr])
def test_what_is_no_row_of_numbers_is_no_table(make, beta: object) -> None:
    with pytest.raises(TypeError, match=r"^(beta|log_snr) .*real numbers"):
        make(beta)


@pytest.mark.parametrize("steps", [["a"], [1 + 0j, 5 + 0j], [True], None, "abc"], ids=repr)
def test_what_is_no_row_of_indices_respaces_nothing(steps: object) -> None:
    with pytest.raises(TypeError, match="^timesteps .*(indices|integers)"):
        linear_schedule(1).respaced(steps)


@pytest.mark.parametrize("value", ["x", None, [1.0], 1j])
def test_parameters_that_are_no_numbers_are_named(value: object) -> None:
    for name, make in {
        "beta_start": lambda v: linear_schedule(5, beta_start=v),
        "beta_end": lambda v: linear_schedule(5, beta_end=v),
        "s": lambda v: cosine_schedule(5, s=v),
        "max_beta": lambda v: sigmoid_schedule(5, max_beta=v),
        "tau": lambda v: sigmoid_schedule(5, tau=v),
        "gamma": min_snr,
        "k": p2,
        "eta": lambda v: SamplerRule("ddim", eta=v),
    }.items():
        if value is None and name == "eta":
            continue  # None is the default there
        with pytest.raises(TypeError, match=rf"^{name} = .* pass a number"):
            make(value)


# ---------------------------------------------------------------- beyond the compute dtype


EXTREME = schedule_from_log_snr([200.0, 0.0, -200.0])
ENDS = torch.tensor([1, 2, 3])


@pytest.mark.parametrize("to", PARAMETERIZATIONS)
@pytest.mark.parametrize("source", PARAMETERIZATIONS)
def test_coefficients_beyond_float32_are_refused_and_float64_is_exact(source: str, to: str) -> None:
    x = torch.tensor([[0.5], [-0.25], [0.125]])
    try:
        found = convert(x, x, ENDS, EXTREME, source=source, to=to)
        assert bool(torch.isfinite(found).all())
    except ValueError as error:
        assert "is not finite in torch.float32: compute in float64" in str(error)  # noqa: PT017
    assert bool(torch.isfinite(convert(x.double(), x.double(), ENDS, EXTREME, source=source, to=to)).all())  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_target_beyond_the_compute_dtype_is_refused(dtype: torch.dtype) -> None:
    x = torch.ones(3, 2, dtype=dtype)
    with pytest.raises(ValueError, match=r"coefficient of score is 2.69e\+43 at t = 1, .*float64"):
        target("score", x, x, ENDS, EXTREME)
    wanted = -1 / mp.sqrt(1 / (1 + mp.exp(mpf(200))))
    found = target("score", x.double(), x.double(), ENDS, EXTREME)[0, 0].item()
    assert abs(mpf(found) / wanted - 1) < 1e-12


@pytest.mark.parametrize("space", PARAMETERIZATIONS)
def test_a_weight_beyond_float32_makes_no_nan(space: str) -> None:
    x = torch.ones(3, 2)
    for weighting in ("simple", "simple_x0", "simple_v", "elbo", "truncated_snr", "min_snr", "p2"):
        try:
            found = loss(x, x, x, ENDS, EXTREME, parameterization=space, weighting=weighting)
            assert bool(torch.isfinite(found).all())
        except ValueError as error:
            assert "is not finite in torch.float32: compute in float64" in str(error)  # noqa: PT017


def test_a_tiny_weight_times_a_huge_error_is_their_product() -> None:
    """−ε/σ = −3.8e22, its square beyond float32, the weight β/2 = 3.4e-46 below it: ½ together, and not 0 · inf."""
    x, t = torch.ones(1, 1), torch.tensor([1])
    schedule = schedule_from_log_snr([104.0])
    found = loss(0 * x, x, x, t, schedule, parameterization="score", weighting="elbo")
    assert found.item() == pytest.approx(0.5, rel=1e-6)


def test_small_step_variances_count_as_extreme_too() -> None:
    """β = 1e-40 leaves log-SNR ordinary from the second step on, but the mean's coefficient is not."""
    schedule = schedule_from_beta([0.5, 1e-40])
    x, t = torch.ones(1, 2), torch.tensor([2])
    with pytest.raises(ValueError, match="coefficient of mean -> x0"):
        convert(x, x, t, schedule, source="mean", to="x0")


@pytest.mark.parametrize("beta", [1e-4, 1e-8, 1e-13, 1e-20])
def test_a_small_step_variance_is_not_lost_in_the_determinant_of_the_mean(beta: float) -> None:
    """x̂0 = (μ − c_t x_t)/c_0; as a difference of row entries, c_0 = 1e-13 kept three digits and 1e-20 none."""
    schedule = schedule_from_beta([0.3, beta])
    mean, x_t, t = torch.tensor([[0.4]]).double(), torch.tensor([[0.7]]).double(), torch.tensor([2])
    found = convert(mean, x_t, t, schedule, source="mean", to="x0").item()
    kept, first = 1 - mpf(beta), 1 - mpf(0.3)
    left = 1 - kept * first
    on_x0 = mp.sqrt(first) * mpf(beta) / left
    on_x_t = mp.sqrt(kept) * mpf(0.3) / left
    wanted = (mpf(mean.item()) - on_x_t * mpf(x_t.item())) / on_x0
    terms = (abs(mpf(mean.item())) + abs(on_x_t * mpf(x_t.item()))) / on_x0
    assert abs(mpf(found) - wanted) <= 1e-14 * terms


def test_usual_schedules_are_moderate() -> None:
    for schedule in (linear_schedule(1000), cosine_schedule(4000), sigmoid_schedule(1000)):
        assert schedule.moderate
    assert not EXTREME.moderate


# ---------------------------------------------------------------- half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gap", [300.0, 17.0, 1e-3])
def test_densities_in_half_precision_are_rounded_once(dtype: torch.dtype, gap: float) -> None:
    zero, other = torch.zeros(1, dtype=dtype), torch.tensor([gap], dtype=dtype)
    spread = torch.tensor([0.3], dtype=dtype)
    m, s = mpf(other.item()), mpf(spread.item())
    kl = (mp.exp(-s) - 1 + s + m**2 * mp.exp(-s)) / 2
    density = -(mp.log(2 * mp.pi) + s + m**2 * mp.exp(-s)) / 2
    for found, wanted in (
        (gaussian_kl(zero, zero, other, spread), kl),
        (Gaussian(zero, spread).log_prob(other), density),
    ):
        assert found.dtype == dtype
        assert found.item() == torch.tensor(float(wanted), dtype=dtype).item()


def test_a_point_mass_has_its_density_at_its_mean() -> None:
    point = Gaussian(torch.zeros(3), torch.full((3,), -math.inf))
    found = point.log_prob(torch.tensor([0.0, 1.0, -1e30]))
    assert found.tolist() == [math.inf, -math.inf, -math.inf]


# ---------------------------------------------------------------- devices, gradients, distances


@pytest.mark.parametrize("device", ["cuda:99", "coda", "xpu", "mps"])
def test_a_device_that_is_not_here_is_named(device: str) -> None:
    for call in (
        lambda: NoiseStream(0).normal((2,), step=0, device=device),
        lambda: sample(halve, (2,), SCHEDULE, parameterization="eps", device=device),
        lambda: train(TrainConfig(steps=1, device=device)),
    ):
        with pytest.raises(ValueError, match=rf"device = '{device}'"):
            call()


def tiny() -> TrainConfig:
    return TrainConfig(steps=2, batch_size=4, T=10, network_options={"base": 8})


def test_training_under_no_grad_is_training() -> None:
    plain = [s.loss for s in train(tiny())]
    with torch.no_grad():
        assert [s.loss for s in train(tiny())] == plain
        assert not torch.is_grad_enabled()


def test_training_in_inference_mode_is_refused() -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        train(tiny())


def test_distances_between_bytes_or_other_channels_are_refused() -> None:
    real = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = Pca(real, components=3)
    with pytest.raises(TypeError, match="generated has dtype torch.uint8"):
        measure(features, real, torch.zeros(9, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="images of two shapes"):
        measure(features, real, torch.zeros(9, 3, 4, 4))
    with pytest.raises(ValueError, match="made from images of 16"):
        measure(features, torch.zeros(9, 3, 4, 4), torch.zeros(9, 3, 4, 4))
    assert measure(features, real, real) == pytest.approx(0, abs=1e-9)
