"""What right code must not be told, and wrong code must: one test for each kind of verdict that users met."""

import warnings

import pytest
import torch
from torch import Tensor

from ddpm_ref import GaussianOracle, cosine_schedule, linear_schedule, sample
from ddpm_ref.conformance import Implementation, Reference, Setting, check, check_diffusion, laws
from ddpm_ref.conformance.judge import judge
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.lawbook.training import unbiasedness
from ddpm_ref.conformance.lawbook.truth import at_steps, truth
from ddpm_ref.conformance.runner import examine, verify

FLOAT64 = torch.float64
LIMIT = LAWS["I11-unbiased"].tolerances[FLOAT64]


def logit_normal(T: int, shift: float = 0.0) -> Tensor:
    u = (torch.arange(1, T + 1, dtype=FLOAT64) - 0.5) / T
    density = torch.exp(-0.5 * (torch.logit(u) - shift) ** 2) / (u * (1 - u))
    return density / density.sum()


def drawn(p: Tensor, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(p, count, True, generator=generator) + 1


@pytest.mark.parametrize("T", [2, 10, 1000])
@pytest.mark.parametrize("shift", [0.0, 1.5, -4.0])
def test_an_exactly_unbiased_sampler_is_right_however_rare_a_step_is(T: int, shift: float) -> None:
    p = logit_normal(T, shift)
    t = drawn(p, 20_000)
    assert float(unbiasedness(t, 1 / (T * p[t - 1]), T).max()) < LIMIT


@pytest.mark.parametrize(
    "weights",
    [
        lambda p, T: torch.ones_like(p),
        lambda p, T: T * p,
        lambda p, T: 1.01 / (T * p),
        lambda p, T: 0.99 / (T * p),
    ],
    ids=["none", "inverted", "too large", "too small"],
)
def test_weights_that_do_not_undo_the_density_are_wrong(weights) -> None:
    p = logit_normal(10, 0.5)
    t = drawn(p, 20_000)
    assert float(unbiasedness(t, weights(p, 10)[t - 1], 10).max()) > LIMIT


def test_a_step_that_never_comes_is_missed_and_one_that_hardly_comes_is_not() -> None:
    T = 1000
    t = torch.randint(1, T, (40_000,), generator=torch.Generator().manual_seed(0))
    assert float(unbiasedness(t, torch.ones(40_000), T).max()) > LIMIT
    even = torch.full((T,), 1.0, dtype=FLOAT64)
    even[0] = 1e-12
    p = even / even.sum()
    t = drawn(p, 40_000)
    assert float(unbiasedness(t, 1 / (T * p[t - 1]), T).max()) < LIMIT


def test_a_draw_of_low_discrepancy_is_unbiased() -> None:
    T, count = 100, 64
    starts = torch.rand(400, 1, generator=torch.Generator().manual_seed(0), dtype=FLOAT64)
    t = ((starts + torch.arange(count) / count) % 1 * T).long() + 1
    assert float(unbiasedness(t.flatten(), torch.ones(t.numel()), T).max()) < LIMIT


class Louder(Reference):
    """Noise of variance 1.2."""

    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        return 1.2**0.5 * super().noise(shape, seed, step, first_index)


def test_chance_has_no_precision() -> None:
    (outcome,) = examine(LAWS["I28-normal"], Louder())
    assert outcome.classification == "bug"


class Float32Only(Implementation):
    """Everything that it offers asserts its dtype."""

    name, first_index = "float32 only", 1
    dtypes, table_dtype = (torch.float32,), torch.float32

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 1000),)

    def rows(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        assert like.dtype == torch.float32
        kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=FLOAT64), 0)[t - 1]
        wide = kept.reshape(-1, *[1] * (like.ndim - 1))
        return wide.sqrt().float(), (1 - wide).sqrt().float()

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s = self.rows(t, x0)
        return a * x0 + s * noise

    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        a, s = self.rows(torch.tensor([1000]), x0)
        return 0.5 * (a**2 * x0**2 - 1 + s**2 - 2 * s.log()).flatten(1).sum(1)

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        assert mean1.dtype == mean2.dtype == log_var1.dtype == log_var2.dtype == torch.float32
        gap = log_var1 - log_var2
        return 0.5 * (torch.expm1(gap) - gap + (mean1 - mean2) ** 2 * torch.exp(-log_var2))

    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        assert nats.dtype == torch.float32
        return nats / (dims * torch.log(torch.tensor(2.0)))


def test_float32_only_code_is_asked_in_float32() -> None:
    outcomes = [o for o in verify(Float32Only()) if o.status != "not-offered"]
    assert {o.dtype for o in outcomes} == {"float32"}
    assert [o.law for o in outcomes if o.classification == "bug"] == []
    assert "I10-bits" in {o.law for o in outcomes if o.status == "pass"}


def test_a_float32_only_defect_is_a_bug() -> None:
    class Wrong(Float32Only):
        def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
            return super().bits_per_dim(nats, dims) * 1.001

    (outcome,) = examine(LAWS["I10-bits"], Wrong())
    assert (outcome.dtype, outcome.classification) == ("float32", "bug")


@pytest.mark.parametrize("make", [linear_schedule, cosine_schedule])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_chains_keep_their_small_steps(make, dtype: torch.dtype) -> None:
    """The end of a DDIM chain with the exact denoiser of N(m, c) is Gaussian; its spread by the product over the linear steps."""
    schedule, c = make(300), 0.04
    kept, rest = schedule.alpha_bar, schedule.one_minus_alpha_bar
    factor = 1.0
    for t in range(300, 0, -1):
        a = float(kept[t]) ** 0.5
        gain = a * c / (float(kept[t]) * c + float(rest[t]))
        direction = float(rest[t - 1] / rest[t]) ** 0.5
        factor *= (float(kept[t - 1]) ** 0.5 - direction * a) * gain + direction
    oracle = GaussianOracle(torch.full((8,), 0.5, dtype=FLOAT64), c * torch.eye(8, dtype=FLOAT64))
    seen = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(x_t.dtype)
        return oracle.denoise(x_t.double(), t, schedule).to(x_t.dtype)

    ends = sample(
        model, (1000, 8), schedule, parameterization="x0", sampler="ddim", seed=3, dtype=dtype
    )
    assert (ends.dtype, set(seen)) == (dtype, {dtype})
    assert float(ends.double().std()) == pytest.approx(factor, rel=0.03)


def test_a_wide_chain_begins_with_the_noise_of_its_own_dtype() -> None:
    """What is not half precision is not touched: x_T is the stream's, bit for bit."""
    first = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        first.append(x_t)
        return x_t

    for dtype in (torch.float32, FLOAT64):
        sample(model, (2, 3), linear_schedule(2), parameterization="x0", seed=5, dtype=dtype)
    again = sample(model, (2, 3), linear_schedule(2), parameterization="x0", seed=5)
    assert again.dtype == torch.float32
    assert torch.equal(first[0], first[4])
    assert first[2].dtype == FLOAT64


# ------------------------------------------------------------------------------------------------ check_diffusion


@pytest.fixture
def few_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `check_diffusion` does with results does not depend on how many laws there are."""
    chosen = ("I1-marginal", "I15-noise", "I10-bits", "I9-kl", "I16-start")
    monkeypatch.setattr(check, "LAWS", {id: LAWS[id] for id in (*chosen, "I8-tails")})


class Halved(Float32Only):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return 0.5 * super().q_sample(setting, x0, t, noise)


@pytest.mark.usefixtures("few_laws")
def test_check_diffusion_returns_every_result_and_calls_back() -> None:
    seen: list[dict] = []
    results = check_diffusion(Float32Only(), callback=seen.append)
    assert results == seen
    assert {r["law"] for r in results} == set(check.LAWS)
    keys = {"law", "status", "error", "tolerance", "dtype", "classification", "unit", "message"}
    assert all(keys <= set(r) for r in results)


@pytest.mark.usefixtures("few_laws")
def test_check_diffusion_raises_once_for_all_failures() -> None:
    with pytest.raises(AssertionError, match="I1-marginal") as caught:
        check_diffusion(Halved())
    assert "I15-noise" in str(caught.value)


@pytest.mark.usefixtures("few_laws")
def test_expected_failures_do_not_raise_and_are_marked() -> None:
    known = {"I1-marginal": "half, issue 7", "I15": "the same", "I10-bits": "long mended"}
    with pytest.warns(UserWarning, match="I10-bits holds .* expected to fail: long mended"):
        results = check_diffusion(Halved(), expected_failures=known)
    statuses = {r["law"]: r["status"] for r in results}
    assert (statuses["I1-marginal"], statuses["I15-noise"]) == ("xfail", "xfail")
    assert statuses["I10-bits"] == "xpass"
    assert next(r for r in results if r["law"] == "I15-noise")["reason"] == "the same"


@pytest.mark.usefixtures("few_laws")
def test_check_diffusion_warns_or_keeps_silent() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_diffusion(Halved(), on_fail="warn")
    assert {str(w.message).split()[0] for w in caught} == {"I1-marginal", "I15-noise"}
    results = check_diffusion(Halved(), on_fail=None)
    assert any(r["status"] == "fail" for r in results)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"expected_failures": {"I8-tail": "x"}}, "unknown law 'I8-tail'.*I8-tails"),
        ({"on_fail": "ignore"}, "on_fail = 'ignore'"),
    ],
)
def test_check_diffusion_names_what_it_does_not_know(words: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_diffusion(Float32Only(), **words)


def test_check_diffusion_wants_an_instance_of_an_adapter() -> None:
    with pytest.raises(TypeError, match="pass an instance"):
        check_diffusion(Float32Only)  # type: ignore[arg-type]


@pytest.mark.usefixtures("few_laws")
def test_an_adapter_that_is_wrong_itself_is_no_failed_law() -> None:
    class Wrong(Float32Only):
        def q_sample(self, setting: Setting, x0: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
            return x0

    with pytest.raises(TypeError, match="the signature is q_sample"):
        check_diffusion(Wrong())


def test_the_start_of_a_long_ancestral_chain_is_watched() -> None:
    (outcome,) = examine(LAWS["I16-start"], Reference())
    assert outcome.status == "pass"
    assert judge(LAWS["I16-start"], Float32Only(), FLOAT64).status == "not-offered"
    assert len(laws("I16-start")) == 1


def test_a_model_of_the_laws_answers_only_where_the_chain_goes() -> None:
    known = truth(Setting("linear", 1000, timesteps=(2, 17, 1000)))
    tables = known.by_original(lambda row: row.a, lambda row: row.s)
    visited = at_steps(tables, torch.tensor([17, 2, 1000]))
    assert torch.allclose((visited**2).sum(0), torch.ones(3, dtype=FLOAT64), rtol=1e-15)
    assert torch.isnan(at_steps(tables, torch.tensor([0, 1, 3, 999]))).all()
    with pytest.raises(KeyError):
        at_steps(tables, torch.tensor([17, -1]))
