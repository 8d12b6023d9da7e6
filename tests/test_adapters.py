"""Adapters of other people's code: they are sound where the library is installed, and see what is planted where it is not."""

import importlib.util
import math
import sys
from collections.abc import Iterable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from ddpm_ref.conformance import Implementation, Setting
from ddpm_ref.conformance.adapters import PEERS, from_file, implementations
from ddpm_ref.conformance.adapters.article import Article, DenoiseModel, Snippet
from ddpm_ref.conformance.adapters.instruments import (
    Recorder,
    each_step,
    float64_tables,
    given_noise,
    replaced,
)
from ddpm_ref.conformance.judge import judge
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.runner import classify, examine

pytestmark = pytest.mark.peers

FORMULAS = ("I1-marginal", "I2-mean", "I3-target", "I3-conversion", "I5-loss", "I16-ancestral")
"""Laws that a correct library satisfies in float64 whatever its version."""

FINDINGS = {
    ("diffusers", "0.42.1"): {
        "diffusers": {"I25-conversion"},
        "diffusers: DDPMScheduler, leading spacing": set(),
        "diffusers: DDPMScheduler, linspace spacing": set(),
        "diffusers: DDPMScheduler, trailing spacing": {"I16-last"},
        "diffusers: DDIMScheduler, leading spacing": set(),
        "diffusers: DDIMScheduler, linspace spacing": {"I16-ddim"},
        "diffusers: DDIMScheduler, trailing spacing": {"I16-ddim", "I16-last"},
        "diffusers: DDIMParallelScheduler, linspace spacing": {"I16-ddim"},
        "diffusers: DDIMParallelScheduler, trailing spacing": {"I16-ddim", "I16-last"},
        "diffusers: DDPMParallelScheduler, custom timesteps": {"I2-mean"},
        'diffusers: variance_type="fixed_large_log"': {"I20-consistent", "I20-reverse"},
        'diffusers: variance_type="learned_range"': {"I20-range-first"},
        'diffusers: beta_schedule="laplace"': {"I24-beta", "I24-alpha-bar"},
        "diffusers: schedules of its own": set(),
    },
    ("denoising-diffusion-pytorch", "2.3.4"): {
        "denoising-diffusion-pytorch": {"I8-value", "I8-tails", "I8-gradient"},
        "denoising-diffusion-pytorch: linear, 10 steps": {"I14-tables", "I26-falling"},
        "denoising-diffusion-pytorch: sigmoid, clamp_min = 0.002": {
            "I24-alpha-bar",
            "I25-terminal",
        },
        "denoising-diffusion-pytorch: immiscible=True": {"I19-recomputable"},
        "denoising-diffusion-pytorch: offset_noise_strength > 0": {"I18-unchanged"},
        "denoising-diffusion-pytorch: LearnedGaussianDiffusion": {"I20-range-first"},
        "denoising-diffusion-pytorch: WeightedObjectiveGaussianDiffusion": {"I16-last"},
        "denoising-diffusion-pytorch: FIDEvaluation, one results folder": {"I23-distance"},
    },
}
"""Bugs in releases that were read line by line; another release is measured and not compared."""


def verdict(id: str, implementation: Implementation) -> str:
    """`pass`, `not-offered`, or the class of the failure, in float64 alone."""
    outcome = judge(LAWS[id], implementation, torch.float64)
    if not outcome.failed:
        return outcome.status
    return str(classify(LAWS[id], implementation, torch.float64, outcome).classification)


def bugs(implementation: Implementation, ids: Iterable[str]) -> set[str]:
    return {id for id in ids if verdict(id, implementation) == "bug"}


def installed(name: str) -> None:
    requires = PEERS[name].requires
    if requires and importlib.util.find_spec(requires) is None:
        pytest.skip(f"{requires} is not installed: its adapter is tested where it is")


@pytest.mark.parametrize("name", PEERS)
def test_the_formulas_of_each_library_hold_in_float64(name: str) -> None:
    installed(name)
    plain = implementations(name)[0]
    assert plain.version
    assert bugs(plain, FORMULAS) == set()


@pytest.mark.parametrize(("name", "version"), FINDINGS)
def test_the_defects_of_a_known_release_are_found(name: str, version: str) -> None:
    installed(name)
    found = {each.name: each for each in implementations(name)}
    if found[name].version != version:
        pytest.skip(f"findings were read in {name} {version}, installed is {found[name].version}")
    for option, expected in FINDINGS[name, version].items():
        assert bugs(found[option], expected) == expected, option


def test_a_declared_meaning_makes_a_convention() -> None:
    installed("azula")
    (outcome, *_) = examine(LAWS["I16-ddim"], implementations("azula")[0])
    assert (outcome.status, outcome.classification) == ("fail", "convention")
    assert "η" in str(outcome.convention)


def by_name(library: str, name: str) -> Implementation:
    installed(library)
    return {each.name: each for each in implementations(library)}[name]


LEARNED = 'diffusers: variance_type="learned"'
RANGE = 'diffusers: variance_type="learned_range"'


def test_a_network_that_says_the_variance_itself_is_a_convention_and_no_bug() -> None:
    outcome, *_ = examine(LAWS["I20-learned"], by_name("diffusers", LEARNED))
    assert (outcome.status, outcome.classification) == ("fail", "convention")
    assert "nan" in outcome.message  # the root of a negative output
    assert str(outcome.convention).startswith('"learned" is the variance itself')


def test_a_learned_range_is_right_after_the_first_step_and_floored_at_it() -> None:
    scheduler = by_name("diffusers", RANGE)
    assert verdict("I20-range", scheduler) == "pass"
    outcome, *_ = examine(LAWS["I20-range-first"], scheduler)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[:2].tolist()
    second = 1 / (1 / beta[0] + (1 - beta[1]) / beta[1])
    assert outcome.witness is not None
    assert outcome.witness["measured"] == pytest.approx(math.log(1e-20 / second), rel=1e-9)


@pytest.mark.parametrize("said", [0.0, 0.3, 1.0])
def test_what_the_scheduler_reads_from_a_network_is_what_it_multiplies_noise_with(
    said: float,
) -> None:
    setting, t = Setting("linear", 1000), torch.tensor([2, 500, 1000])
    range_said = torch.full((3, 3), said, dtype=torch.float64)
    value, logarithm = by_name("diffusers", RANGE).learned_variance(setting, "range", range_said, t)
    torch.testing.assert_close(value, logarithm.exp(), rtol=1e-12, atol=0)


def test_noise_that_low_precision_loses_is_severe_and_rounded_noise_is_precision() -> None:
    """In float16 and bfloat16 1 − ᾱ of its cast ᾱ is 0 at small t, and no noise is left; in float32 only digits go."""
    installed("diffusers")
    classes = {
        o.dtype: o.classification
        for o in examine(LAWS["I15-noise"], implementations("diffusers")[0])
    }
    assert classes == {
        "float64": None, "float32": "precision", "bfloat16": "severe", "float16": "severe",
    }  # fmt: skip


@pytest.mark.parametrize("name", [n for n, peer in PEERS.items() if peer.requires])
def test_a_missing_library_is_said_as_such(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PEERS[name].requires, None)
    with pytest.raises(ModuleNotFoundError):
        implementations(name)


def test_an_unknown_library_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="'diffusers'"):
        implementations("diffuser")


# ------------------------------------------------------------------------------------------------ a fake library


class FakePath:
    """The few lines of `AffineProbPath` that the adapter calls, with a noise level that a test can spoil."""

    factor = 1.0

    def __init__(self, scheduler: object) -> None:
        self.scheduler = scheduler

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor):
        given = self.scheduler(t)
        wide = [v.reshape(-1, *[1] * (x_1.ndim - 1)) for v in (given.alpha_t, given.sigma_t)]
        sample = ModuleType("sample")
        sample.x_t = wide[0] * x_1 + self.factor * wide[1] * x_0
        return sample

    def epsilon_to_target(self, epsilon: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        given = self.scheduler(t)
        return (x_t - given.sigma_t * epsilon) / given.alpha_t

    def target_to_epsilon(self, x_1: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        given = self.scheduler(t)
        return (x_t - given.alpha_t * x_1) / given.sigma_t

    def epsilon_to_velocity(self, epsilon: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """On the straight path, where the adapter asks for it: data minus noise."""
        return self.epsilon_to_target(epsilon, x_t, t) - epsilon

    def target_to_velocity(self, x_1: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return x_1 - self.target_to_epsilon(x_1, x_t, t)

    def velocity_to_target(self, velocity: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t + self.scheduler(t).sigma_t * velocity

    def velocity_to_epsilon(self, velocity: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t - self.scheduler(t).alpha_t * velocity


class FakeScheduler:
    def __call__(self, t: Tensor):
        return type("Given", (), {"alpha_t": t, "sigma_t": 1 - t})


class FakeCosine:
    def __call__(self, t: Tensor):
        angle = math.pi / 2 * t
        return type("Given", (), {"alpha_t": angle.sin(), "sigma_t": angle.cos()})


class FakeVP:
    def __call__(self, t: Tensor):
        exponent = 0.5 * (1 - t) ** 2 * 19.9 + (1 - t) * 0.1
        kept = torch.exp(-exponent)
        return type("Given", (), {"alpha_t": kept.sqrt(), "sigma_t": (1 - kept).sqrt()})


@pytest.fixture
def fake_library(monkeypatch: pytest.MonkeyPatch) -> type[FakePath]:
    path = type("Path", (FakePath,), {})
    top, paths, schedulers = (
        ModuleType(n)
        for n in ("flow_matching", "flow_matching.path", "flow_matching.path.scheduler")
    )
    paths.AffineProbPath = path
    schedulers.CondOTScheduler, schedulers.CosineScheduler = FakeScheduler, FakeCosine
    schedulers.VPScheduler = FakeVP
    for module in (top, paths, schedulers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return path


def test_an_adapter_over_a_fake_of_its_library_holds(fake_library: type[FakePath]) -> None:
    assert bugs(implementations("flow-matching")[0], ("I1-marginal", "I3-conversion")) == set()


def test_an_adapter_over_a_spoiled_fake_fails(fake_library: type[FakePath]) -> None:
    fake_library.factor = 1 + 1e-6
    assert bugs(implementations("flow-matching")[0], ("I1-marginal", "I3-conversion")) == {
        "I1-marginal"
    }


# ------------------------------------------------------------------------------------------------ instruments


def test_float64_tables_widens_a_module_and_restores_it() -> None:
    module = ModuleType("library")
    module.torch = torch
    with float64_tables(module):
        assert module.torch.linspace(0, 1, 3, dtype=module.torch.float32).dtype == torch.float64
        assert torch.tensor(0.5).dtype == torch.float64
    assert module.torch is torch
    assert torch.tensor(0.5).dtype == torch.float32


def test_replaced_restores_after_an_exception() -> None:
    module = ModuleType("library")
    module.value = 1
    with pytest.raises(RuntimeError), replaced(module, "value", 2):
        raise RuntimeError
    assert module.value == 1


def test_given_noise_stands_for_a_draw() -> None:
    module = ModuleType("library")
    module.torch = torch
    noise = torch.arange(6.0).reshape(2, 3)
    with given_noise(module, noise):
        assert torch.equal(module.torch.randn_like(torch.empty(2, 3)), noise)
    assert module.torch is torch


def test_recorder_keeps_what_it_saw() -> None:
    network = Recorder(torch.ones(2))
    assert torch.equal(network(torch.zeros(2), 7), torch.ones(2))
    assert torch.equal(network.seen[0], torch.zeros(2))


def test_each_step_calls_once_per_sample() -> None:
    x = torch.arange(3.0)[:, None]
    assert each_step(torch.tensor([5, 7, 2]), lambda t, i: t * x[i]).flatten().tolist() == [0, 7, 4]


# ------------------------------------------------------------------------------------------------ the article


def test_the_articles_snippet_runs_as_printed() -> None:
    snippet = Snippet(T=1000)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    loss = snippet.noise_loss(DenoiseModel(), images, snippet.draw_steps(5))
    loss.backward()
    assert 0 < loss.item() < 10


def test_what_the_article_breaks_and_what_it_only_calls_otherwise() -> None:
    expected = {
        "I1-marginal": "pass",
        "I5-loss": "pass",
        "I19-recomputable": "pass",
        "I20-reverse": "bug",
        "I5-weight": "bug",
        "I5-term": "bug",
        "I30-gaussian-denoiser": "bug",
        "I11-count": "convention",
    }
    assert {id: verdict(id, Article()) for id in expected} == expected


def test_the_best_network_without_time_is_a_constant_multiple_on_unit_data() -> None:
    """For x0 ~ N(0, I), x_t ~ N(0, I) at every t, so that ε̂(x) = mean over t of √(1−ᾱ_t) times x."""
    setting, t = Setting("linear", 1000), torch.tensor([1, 500, 1000])
    x_t = torch.tensor([[0.3, -1.1], [2.0, 0.1], [-0.4, 0.9]], dtype=torch.float64)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    kept = torch.cumprod(1 - beta, 0)
    slope = (1 - kept).sqrt().mean()
    root, rest = kept[t - 1].sqrt()[:, None], (1 - kept[t - 1]).sqrt()[:, None]
    expected = (x_t - rest * slope * x_t) / root
    identity = torch.eye(2, dtype=torch.float64)
    found = Article().gaussian_denoise(setting, torch.zeros(2).double(), identity, x_t, t)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


# ------------------------------------------------------------------------------------------------ files of users


def test_a_file_with_one_adapter_needs_no_class(tmp_path) -> None:
    file = tmp_path / "only_one.py"
    from_file.write_template(file)
    assert from_file.load(str(file)).name == "my diffusion"
    assert from_file.load(f"{file}:MyDiffusion").first_index == 0


def test_files_that_cannot_be_used_say_why(tmp_path) -> None:
    empty = tmp_path / "no_adapter.py"
    empty.write_text("x = 1\n")
    with pytest.raises(ValueError, match="0 adapters"):
        from_file.load(str(empty))
    with pytest.raises(ValueError, match="no file"):
        from_file.load(str(tmp_path / "absent.py"))
    with pytest.raises(FileExistsError):
        from_file.write_template(empty)
