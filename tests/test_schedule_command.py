"""`ddpm-bench schedule`: its numbers are closed forms, its errors are errors, its notes are not."""

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from bench.__main__ import main
from bench.measure.schedule.findings import leak, monotony, relative_weights, sampler_steps
from bench.measure.schedule.source import NAMED, from_entries, read
from bench.report.schedule.text import as_text
from ddpm_ref.schedule import cosine_schedule, linear_schedule

pytestmark = pytest.mark.any_torch


def examined(capsys, *words: str, status: int = 0) -> dict:
    assert main(["schedule", *words, "--json", "-"]) == status
    return json.loads(capsys.readouterr().out)


def errors(found: dict) -> list[str]:
    return [each["text"] for each in found["findings"] if each["level"] == "error"]


def exact_beta(kind: str, T: int, start: str, end: str) -> list[mpmath.mpf]:
    """β_1 … β_T with the working precision."""
    a, b = mpmath.mpf(start), mpmath.mpf(end)
    if kind == "linear":
        return [a + (b - a) * i / (T - 1) for i in range(T)]
    if kind == "scaled_linear":
        a, b = mpmath.sqrt(a), mpmath.sqrt(b)
        return [(a + (b - a) * i / (T - 1)) ** 2 for i in range(T)]
    assert kind == "squaredcos_cap_v2"
    offset = mpmath.mpf("0.008")

    def f(t):
        return mpmath.cos((t + offset) / (1 + offset) * mpmath.pi / 2) ** 2

    return [
        min(1 - f(mpmath.mpf(i + 1) / T) / f(mpmath.mpf(i) / T), mpmath.mpf("0.999"))
        for i in range(T)
    ]


def exact_bars(beta: list[mpmath.mpf], rescaled: bool) -> list[mpmath.mpf]:
    """ᾱ_1 … ᾱ_T, rescaled after Lin et al. 2024, algorithm 1, where asked for."""
    bars, product = [], mpmath.mpf(1)
    for value in beta:
        product *= 1 - value
        bars.append(product)
    if not rescaled:
        return bars
    roots = [mpmath.sqrt(bar) for bar in bars]
    return [((r - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2 for r in roots]


SHIPPED = {
    "DDPMScheduler": {},
    "DDIMScheduler": {},
    "PNDMScheduler": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "skip_prk_steps": True},
    "EulerDiscreteScheduler": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "zero terminal SNR": {"_class": "DDIMScheduler", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing",
                          "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"_class": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"},
}  # fmt: skip
KNOWN = {"DDPMScheduler": 0.00635, "PNDMScheduler": 0.0683, "zero terminal SNR": 0.0}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # theirs, from NumPy
@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_of_what_diffusers_ships_is_exact(name, tmp_path, capsys) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is an optional peer")
    options = dict(SHIPPED[name])
    made = getattr(diffusers, options.pop("_class", name))(**options)
    made.save_pretrained(tmp_path)
    found = examined(capsys, str(tmp_path / "scheduler_config.json"), "--steps", "50")
    config = made.config
    with mpmath.workdps(50):
        beta = exact_beta(config.beta_schedule, 1000, str(config.beta_start), str(config.beta_end))
        rescaled = bool(config.get("rescale_betas_zero_snr"))
        bars = exact_bars(beta, rescaled)
        last = bars[-1]
        exact = {
            "sqrt_alpha_bar_T": mpmath.sqrt(last),
            "snr_T": last / (1 - last),
            "log_snr_1": mpmath.log(bars[0] / (1 - bars[0])),
            "beta_1": 1 - bars[0],
            "beta_T": 1 - bars[-1] / bars[-2],
            "prior_bits_zero": -(last + mpmath.log(1 - last)) / (2 * mpmath.log(2)),
            "prior_bits_one": -mpmath.log(1 - last) / (2 * mpmath.log(2)),
        }
        for field, value in exact.items():
            assert found[field] == pytest.approx(float(value), rel=1e-9, abs=1e-30), field
        if rescaled:
            assert found["log_snr_T"] is None
        else:
            assert found["log_snr_T"] == pytest.approx(float(mpmath.log(last / (1 - last))))
        assert made.alphas_cumprod[0].item() == pytest.approx(float(bars[0]), abs=1e-6)
        # ᾱ rounds to 1 from half a unit in the last place below it: 2^-9 in bf16, 2^-12 in fp16.
        for half, unit in (("bf16", -9), ("fp16", -12)):
            assert found["vanishing"][half] == sum(1 - bar <= mpmath.mpf(2) ** unit for bar in bars)
        made.set_timesteps(50)
        ours = next(row for row in found["spacing"] if row["configured"])
        assert ours["spacing"] == config.timestep_spacing
        steps = np.asarray(made.timesteps)
        assert ours["last"] == round(float(steps.max())) + 1
        assert ours["first"] == round(float(steps.min())) + 1
        assert ours["sqrt_alpha_bar"] == pytest.approx(float(mpmath.sqrt(bars[ours["last"] - 1])))
    if name in KNOWN:
        assert found["sqrt_alpha_bar_T"] == pytest.approx(KNOWN[name], rel=1e-3)
    if name == "cosine":
        assert found["beta_T"] == 0.999
    assert not errors(found)


@pytest.mark.peers
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 30, 50, 333, 999])
def test_spacing_is_that_of_diffusers(spacing, n) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is an optional peer")
    made = diffusers.DDIMScheduler(1000, timestep_spacing=spacing)
    made.set_timesteps(n)
    row = next(r for r in sampler_steps(read("linear", None, False), 1000, n) if r["spacing"] == spacing)  # fmt: skip
    theirs = made.timesteps
    assert (row["first"], row["last"]) == (int(theirs.min()) + 1, int(theirs.max()) + 1)


@pytest.mark.peers
def test_flow_matching_and_edm_are_read_in_variance_preserving_notation(tmp_path, capsys) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is an optional peer")
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow.save_pretrained(tmp_path)
    found = from_entries("f", json.loads((tmp_path / "scheduler_config.json").read_text()))
    s = flow.sigmas.double().flip(0)
    torch.testing.assert_close(
        found.schedule.log_snr[1:-1], (2 * ((1 - s) / s).log())[:-1], rtol=1e-4, atol=1e-3
    )
    assert found.schedule.alpha_bar[-1] == 0
    assert found.predicts == "velocity"
    edm = diffusers.EDMEulerScheduler()
    edm.save_pretrained(tmp_path)
    found = from_entries("e", json.loads((tmp_path / "scheduler_config.json").read_text()))
    assert found.schedule.log_snr[1].item() == pytest.approx(-2 * math.log(0.002))
    assert found.schedule.log_snr[-1].item() == pytest.approx(-2 * math.log(80))
    assert not errors(examined(capsys, str(tmp_path / "scheduler_config.json")))


def file_of(tmp_path: Path, **entries) -> str:
    path = tmp_path / "tables.json"
    path.write_text(json.dumps(entries))
    return str(path)


def test_tables_that_belong_together_are_no_error(tmp_path, capsys) -> None:
    exact = linear_schedule(100)
    bar = torch.cumprod(1 - exact.beta[1:].float(), 0)  # as libraries keep them, in float32
    tables = {"betas": exact.beta[1:].float().tolist(), "alphas_cumprod": bar.tolist(), "snr": (bar / (1 - bar)).tolist()}  # fmt: skip
    assert not errors(examined(capsys, file_of(tmp_path, **tables)))
    ours = {"beta": exact.beta.tolist(), "alpha_bar": exact.alpha_bar.tolist()}  # with clean data
    assert not errors(examined(capsys, file_of(tmp_path, **ours)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"snr": lambda e: (e.alpha_bar[1:] / (1 - e.alpha_bar[1:])).sqrt()}, "snr does not belong to beta"),
        ({"alpha_bar": lambda e: 1 - e.beta[1:]}, "alpha_bar does not belong to beta: alpha_bar[2]"),
        ({"alpha_bar": lambda e: e.alpha_bar[:-1]}, "alpha_bar"),
        ({"log_snr": lambda e: e.log_snr[1:] / 2}, "log_snr does not belong to beta: log_snr[1]"),
        ({"snr": lambda e: torch.ones(9)}, "snr has 9 entries, the schedule 10 steps"),
    ],
)  # fmt: skip
def test_tables_that_contradict_each_other_are_errors(tmp_path, capsys, change, said) -> None:
    exact = linear_schedule(10)
    tables = {"beta": exact.beta[1:].tolist(), **{k: f(exact).tolist() for k, f in change.items()}}
    found = examined(capsys, file_of(tmp_path, **tables), status=1)
    assert any(said in text for text in errors(found)), errors(found)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"betas": [0.1, math.nan, 0.2]}, "beta[2] is nan"),
        ({"betas": [0.1, None, 0.2]}, "beta[2] is nan"),
        ({"betas": [0.1, -0.1, 0.2]}, "beta[2] = -0.1"),
        ({"betas": [0.1, 1.5, 0.2]}, "beta[2] = 1.5"),
        ({"log_snr": [3, 3, 1]}, "not strictly decreasing"),
        ({"alphas_cumprod": [0.9, 0.95]}, "not strictly decreasing"),
        ({"beta_schedule": "linear", "num_train_timesteps": 9, "rescale_betas_zero_snr": True}, "predict v or x0"),
        ({"beta_schedule": "linear", "num_train_timesteps": 10, "steps_offset": 1, "_steps": 10}, "asks for t = 11, but there are 10"),
    ],
)  # fmt: skip
def test_what_no_schedule_is_exits_1(tmp_path, capsys, entries, said) -> None:
    entries = dict(entries)
    steps = str(entries.pop("_steps", 1))
    found = examined(capsys, file_of(tmp_path, **entries), "--steps", steps, status=1)
    assert any(said in text for text in errors(found)), errors(found)
    assert main(["schedule", file_of(tmp_path, **entries), "--steps", steps]) == 1
    assert "\nerror: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["linaer"], "linear"),
        (["nowhere.json"], "does not exist"),
        (["linear", "--weighting", "minsnr"], "min_snr"),
        (["linear", "--steps", "1001"], "the schedule has 1000"),
        (["cosine", "--T", "1", "--zero-terminal-snr"], "T = 1"),
    ],
)
def test_errors_of_use_exit_2(words, said, capsys) -> None:
    assert main(["schedule", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"a": 1}', '{"betas": []}', '{"betas": ["x"]}', '{"_class_name": "DDPMScheduler", "beta_schedule": "liner"}'])  # fmt: skip
def test_files_that_are_no_schedule_exit_2(text, tmp_path, capsys) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert main(["schedule", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# Kingma & Gao 2023, table 1 and section 4: which weightings fall with log-SNR.
MONOTONE = {
    ("simple_v", "cosine"): True,
    ("flow_velocity", "cosine"): True,
    ("sigmoid", "cosine"): True,
    ("continuous_elbo", "cosine"): True,
    ("elbo", "linear"): True,
    ("simple", "cosine"): False,
    ("edm", "cosine"): False,
    ("p2", "cosine"): False,
    ("min_snr", "cosine"): False,
}


@pytest.mark.parametrize(("name", "kind"), MONOTONE)
def test_monotone_as_kingma_and_gao_say(name, kind) -> None:
    found = monotony(name, NAMED[kind](1000), "eps")
    assert found["monotone"] is MONOTONE[name, kind]
    assert not found["monotone"] or math.fsum(found["p_w"]) == pytest.approx(1)
    assert (min(found["p_w"]) >= -1e-12) is found["monotone"]


def test_p_w_is_the_mixture_that_the_weighted_sum_is() -> None:
    """Σ w_t L_t = Σ p_w(s) Σ_{t ≥ s} L_t for any terms L, and w is a ratio of losses in any space."""
    from ddpm_ref.objective import weight

    schedule = cosine_schedule(60)
    terms = torch.rand(59, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = relative_weights("simple_v", schedule)
    density = torch.tensor(monotony("simple_v", schedule, "v")["p_w"], dtype=torch.float64)
    tails = terms.flip(0).cumsum(0).flip(0)
    torch.testing.assert_close((values * terms).sum() / values[-1], (density * tails).sum())
    t = torch.arange(2, 61)
    factors = [weight(w, t, schedule, parameterization="v") for w in ("simple_v", "elbo")]
    torch.testing.assert_close(values, factors[0] / factors[1])


def test_the_leak_is_that_of_the_exact_sampler() -> None:
    """Ancestral sampling with the exact denoiser of N(μ, ℓ), started from N(0, 1), step by step in closed form."""
    schedule = read("scaled_linear", None, False).schedule
    variance, mean = 40.0, 3.0
    rows = torch.randn(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    data = torch.stack([mean + math.sqrt(variance) * rows[:, 0], rows[:, 1], rows[:, 2]], dim=1)
    found = leak(schedule, data)
    along = data[:, 0]
    assert found["largest_eigenvalue"] == pytest.approx(along.var().item(), rel=0.01)
    assert found["mean"] == pytest.approx(abs(along.mean().item()), abs=0.1)
    level, spread, m, v = found["largest_eigenvalue"], 1.0, found["mean"], 0.0
    centre = (
        0.0  # x_T ~ N(0, 1); then q(x_{t−1} | x_t) of the Gaussian truth, which is linear in x_t
    )
    bar, beta = schedule.alpha_bar.tolist(), schedule.beta.tolist()
    for t in range(schedule.T, 0, -1):
        reached, before = bar[t] * level + 1 - bar[t], bar[t - 1] * level + 1 - bar[t - 1]
        slope = math.sqrt(1 - beta[t]) * before / reached
        v = before - slope**2 * reached
        centre = math.sqrt(bar[t - 1]) * m + slope * (centre - math.sqrt(bar[t]) * m)
        spread = slope**2 * spread + v
    assert found["mean_sampled"] == pytest.approx(centre, rel=1e-6)
    assert found["deviation_sampled"] == pytest.approx(math.sqrt(spread), rel=1e-6)
    assert found["mean_sampled"] < 0.9 * found["mean"]
    none = leak(read("scaled_linear", None, True).schedule, data)
    assert none["mean_sampled"] == pytest.approx(none["mean"])


def test_the_page_and_the_picture(tmp_path, capsys) -> None:
    picture = tmp_path / "a.png"
    words = ["linear", "--data", "digits", "--out", str(picture), "--weighting", "simple", "elbo"]
    assert main(["schedule", *words]) == 0
    page = capsys.readouterr().out
    for word in ("0.0063528", "first 10 steps", "monotone no", "monotone yes", "largest eigenvalue", "L_T of these data", "note: "):  # fmt: skip
        assert word in page
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_zero_terminal_snr_with_v_has_no_error(capsys) -> None:
    words = ["cosine", "--zero-terminal-snr", "--parameterization", "v", "--weighting", "flow_velocity", "simple_v"]  # fmt: skip
    found = examined(capsys, *words)
    assert found["sqrt_alpha_bar_T"] == 0
    assert "Schedule" not in as_text(found)
    assert main(["schedule", "cosine", "--zero-terminal-snr"]) == 1
    assert "alpha_bar_T = 0 divides by zero" in capsys.readouterr().out
    assert examined(capsys, "linear", "--T", "1")["T"] == 1
