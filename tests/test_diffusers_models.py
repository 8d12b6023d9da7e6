"""`elbo --model hf:FOLDER`: a saved diffusers model measured as its configuration means it, and said; nothing else of the folder is trusted."""

import json
import math
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.metrics.diffusers_scheduler import read
from bench.metrics.foreign_model import Foreign, interpret
from bench.terminal.usage import UsageError
from ddpm_ref.elbo import elbo
from ddpm_ref.schedule import SCHEDULES, linear_schedule, rescale_to_zero_terminal_snr

pytestmark = pytest.mark.peers

diffusers = pytest.importorskip("diffusers", reason="diffusers is an optional peer")
T = 7


def unet(out_channels: int = 1, **options) -> torch.nn.Module:
    """A tiny UNet for the digits, with the random weights of seed 0."""
    torch.manual_seed(0)
    shape = {
        "sample_size": 8,
        "in_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": (4, 8),
    }
    blocks = {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
    }
    return diffusers.UNet2DModel(
        out_channels=out_channels, norm_num_groups=2, **shape, **blocks, **options
    )


def scheduler(**options):
    return diffusers.DDPMScheduler(num_train_timesteps=T, **{"clip_sample": False, **options})


def saved(folder: Path, model, steps) -> Path:
    diffusers.DDPMPipeline(model, steps).save_pretrained(folder)
    return folder


def measured(capsys, *words: str) -> dict:
    data = () if "--images" in words else ("--data", "digits")
    assert main(["elbo", *words, *data, "--full", "--examples", "3", "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def digits(n: int = 3) -> torch.Tensor:
    from bench.data import load

    return load("digits").heldout[:n]


def by_hand(model, steps, **options) -> float:
    """bits/dim of (unet, scheduler) with nothing of `bench`: index t − 1, `.sample`, the scheduler's betas."""
    from ddpm_ref.schedule import schedule_from_beta

    schedule = schedule_from_beta(steps.betas.double())
    found = elbo(
        lambda x, t: model.eval()(x, t - 1).sample, digits(), schedule, levels=17, **options
    )
    return found.bits_per_dim.mean().item()


def test_a_saved_pipeline_is_the_pair_by_hand(tmp_path, capsys) -> None:
    model, steps = unet(), scheduler()
    found = measured(capsys, "--model", f"hf:{saved(tmp_path, model, steps)}")
    assert found["bits_per_dim"] == pytest.approx(by_hand(model, steps), rel=1e-9)
    assert found["protocol"]["first_step"] == 0
    assert "first step: 0" in found["protocol"]["text"]
    assert any("prediction_type epsilon" in line for line in found["read"])


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"prediction_type": "sample"}, {"parameterization": "x0"}),
        ({"prediction_type": "v_prediction"}, {"parameterization": "v"}),
        ({"variance_type": "fixed_large"}, {"variance": "beta"}),
        ({"clip_sample": True}, {"clip": 1.0}),
        ({"clip_sample": True, "clip_sample_range": 0.7}, {"clip": 0.7}),
        ({"beta_schedule": "squaredcos_cap_v2"}, {}),
    ],
)
def test_what_the_configuration_says_is_done_and_said(tmp_path, capsys, options, same) -> None:
    model, steps = unet(), scheduler(**options)
    found = measured(capsys, "--model", f"hf:{saved(tmp_path, model, steps)}")
    assert found["bits_per_dim"] == pytest.approx(by_hand(model, steps, **same), rel=1e-9)
    assert found["protocol"]["clip"] == same.get("clip")
    for name, value in options.items():
        if name != "beta_schedule":
            assert any(name in line for line in found["read"]), name
            assert any(str(value).lower() in line for line in found["read"]), value


def test_clipping_can_be_left_out(tmp_path, capsys) -> None:
    model = unet()
    folder = f"hf:{saved(tmp_path, model, scheduler(clip_sample=True))}"
    found = measured(capsys, "--model", folder, "--clip", "never")
    assert found["protocol"]["clip"] is None
    assert found["bits_per_dim"] == pytest.approx(by_hand(model, scheduler()), rel=1e-9)


@pytest.mark.parametrize("beside", [True, False])
def test_a_models_folder_with_its_scheduler(tmp_path, capsys, beside) -> None:
    model, steps = unet(), scheduler()
    model.save_pretrained(tmp_path)
    steps.save_pretrained(tmp_path if beside else tmp_path / "scheduler")
    found = measured(capsys, "--model", f"hf:{tmp_path}")
    assert found["bits_per_dim"] == pytest.approx(by_hand(model, steps), rel=1e-9)


def test_the_network_folder_inside_a_pipeline_finds_its_scheduler(tmp_path, capsys) -> None:
    model, steps = unet(), scheduler()
    found = measured(capsys, "--model", f"hf:{saved(tmp_path, model, steps) / 'unet'}")
    assert found["bits_per_dim"] == pytest.approx(by_hand(model, steps), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16])
def test_a_model_is_called_in_the_dtype_it_was_saved_in(tmp_path, capsys, dtype) -> None:
    model, steps = unet(), scheduler()
    exact = by_hand(model, steps)
    folder = saved(tmp_path, model.to(dtype), steps)
    found = measured(capsys, "--model", f"hf:{folder}")
    assert any(str(dtype).removeprefix("torch.") in line for line in found["read"])
    # Weights and activations have 8 bits in bf16: the prediction errs by a few parts in a thousand of itself.
    assert found["bits_per_dim"] == pytest.approx(exact, rel=0.02)
    assert dtype == torch.float64 or found["bits_per_dim"] != pytest.approx(exact, rel=1e-9)


def test_a_variant_file_is_found(tmp_path, capsys) -> None:
    model, steps = unet(), scheduler()
    model.half().save_pretrained(tmp_path, variant="fp16")
    steps.save_pretrained(tmp_path)
    assert any("float16" in line for line in measured(capsys, "--model", f"hf:{tmp_path}")["read"])


def test_zero_terminal_snr_is_read(tmp_path, capsys) -> None:
    steps = scheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    model = unet()
    found = measured(capsys, "--model", f"hf:{saved(tmp_path, model, steps)}")
    schedule = rescale_to_zero_terminal_snr(linear_schedule(T))
    direct = elbo(
        lambda x, t: model.eval()(x, t - 1).sample,
        digits(),
        schedule,
        parameterization="v",
        levels=17,
    )
    # diffusers rescales in float32: sqrt(alpha_bar) of the last steps keeps 1e-6 of itself.
    assert found["bits_per_dim"] == pytest.approx(direct.bits_per_dim.mean().item(), rel=1e-3)
    assert found["terms_nats"]["prior"]["mean"] == 0
    assert any("zero terminal SNR" in line for line in found["read"])


def test_a_learned_range_is_read(tmp_path, capsys) -> None:
    model, steps = unet(out_channels=2), scheduler(variance_type="learned_range")
    found = measured(capsys, "--model", f"hf:{saved(tmp_path, model, steps)}")
    assert found["protocol"]["variance"] == "learned"
    assert found["protocol"]["decoder_variance"] == "learned"
    kinds = {k: by_hand(_halved(model), steps, variance=k) for k in ("posterior", "beta")}
    assert math.isfinite(found["bits_per_dim"])
    assert found["bits_per_dim"] != pytest.approx(kinds["posterior"], rel=1e-6)


def _halved(model) -> torch.nn.Module:
    class Half(torch.nn.Module):
        def forward(self, x, t):
            return type("Out", (), {"sample": model.eval()(x, t).sample[:, :1]})

    return Half()


def test_twice_the_channels_without_learned_range_names_the_option(tmp_path, capsys) -> None:
    # DiT's pipelines discard the second half: their scheduler has no variance_type.
    folder = saved(tmp_path, unet(out_channels=2), diffusers.DDIMScheduler(T, clip_sample=False))
    assert main(["elbo", "--model", f"hf:{folder}", "--data", "digits", "--full"]) == 2
    assert "--variance learned_range" in capsys.readouterr().err


@pytest.mark.parametrize("give", ["pipeline", "pair"])
def test_a_pipeline_or_a_pair_from_a_factory(give) -> None:
    model, steps = unet(), scheduler(clip_sample=True)
    returned = diffusers.DDPMPipeline(model, steps) if give == "pipeline" else (model, steps)
    foreign = interpret(returned)
    assert (foreign.offset, foreign.clip, foreign.parameterization) == (-1, 1.0, "eps")


def test_any_model_of_diffusers_counts_from_zero() -> None:
    model = unet()
    assert interpret(model).offset == -1  # the bare model was silently off by one
    assert interpret((model, linear_schedule(T))).offset == -1
    assert Foreign(model, first_step=1).offset == 0  # said explicitly, it is followed
    assert interpret(lambda x, t: x).offset == 0


def test_a_bare_model_equals_the_pair(tmp_path, capsys) -> None:
    file = tmp_path / "bare.py"
    file.write_text(
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.test_diffusers_models import unet\n"
        "def make():\n    return unet()\n"
    )
    found = measured(capsys, "--model", f"{file}:make", "--T", str(T))
    assert found["protocol"]["first_step"] == 0
    assert found["bits_per_dim"] == pytest.approx(by_hand(unet(), scheduler()), rel=1e-6)
    shifted = measured(capsys, "--model", f"{file}:make", "--T", str(T), "--first-step", "1")
    assert shifted["bits_per_dim"] != pytest.approx(found["bits_per_dim"], rel=1e-6)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_the_decoders_variance_is_an_option_and_is_said(tmp_path, capsys, variance) -> None:
    """σ_1² = β̃_2 changes the reconstruction alone, to what a table says."""
    from ddpm_ref.reverse import reverse_variance
    from ddpm_ref.schedule import schedule_from_beta

    model, steps = unet(), scheduler()
    words = ("--model", f"hf:{saved(tmp_path, model, steps)}", "--variance", variance)
    usual = measured(capsys, *words)
    found = measured(capsys, *words, "--decoder-variance", "posterior")
    schedule = schedule_from_beta(steps.betas.double())
    table = reverse_variance(variance, schedule)
    beta = schedule.beta
    table[1] = beta[2] * beta[1] / (1 - (1 - beta[1]) * (1 - beta[2]))  # β̃_2 = β_2 β_1/(1−ᾱ_2)
    assert found["bits_per_dim"] == pytest.approx(by_hand(model, steps, variance=table), rel=1e-9)
    for part in ("prior", "diffusion"):
        assert found["terms_nats"][part] == usual["terms_nats"][part]
    assert usual["protocol"]["decoder_variance"] == "beta"
    assert found["protocol"]["decoder_variance"] == "posterior"
    assert found["protocol"]["variance"] == variance
    assert f"reverse variance: {variance}" in found["protocol"]["text"]
    assert "sigma_1^2: posterior variance at t = 2" in found["protocol"]["text"]


SIGMA_SPACE = ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler", "DDIMScheduler", "KDPM2DiscreteScheduler")  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # their own, from NumPy
@pytest.mark.parametrize("name", SIGMA_SPACE)
@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_sigma_space_with_betas_is_the_same_chain(name, kind) -> None:
    made = getattr(diffusers, name)(num_train_timesteps=1000, beta_schedule=kind)
    found, plain = (
        read(made),
        read(diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule=kind)),
    )
    start, end = made.config.beta_start, made.config.beta_end
    power = 2 if kind == "scaled_linear" else 1
    beta = torch.linspace(start ** (1 / power), end ** (1 / power), 1000).double() ** power
    torch.testing.assert_close(found.schedule.beta[1:], beta, rtol=1e-5, atol=0)
    assert found.schedule.T == plain.schedule.T
    assert found.variance == "posterior"


def test_shifted_tables_are_followed_and_said() -> None:
    made = diffusers.CogVideoXDDIMScheduler(num_train_timesteps=50, clip_sample=False)
    found = read(made)
    torch.testing.assert_close(
        found.schedule.alpha_bar[1:], made.alphas_cumprod.double(), rtol=1e-6, atol=0
    )
    assert any("alphas_cumprod is not the product" in line for line in found.said)


NO_BOUND = {
    "FlowMatchEulerDiscreteScheduler": "flow matching",
    "FlowMatchHeunDiscreteScheduler": "flow matching",
    "EDMEulerScheduler": "sigma space",
    "EDMDPMSolverMultistepScheduler": "sigma space",
    "CMStochasticIterativeScheduler": "sigma space",
    "IPNDMScheduler": "no betas",
    "DDPMWuerstchenScheduler": "no betas",
    "AmusedScheduler": "no betas",
}


@pytest.mark.parametrize("name", NO_BOUND)
def test_schedulers_without_betas_are_refused_by_name(name) -> None:
    arguments = {"mask_token_id": 3} if name == "AmusedScheduler" else {}
    made = getattr(diffusers, name)(**arguments)
    with pytest.raises(UsageError) as error:
        interpret((unet(), made))
    assert name in str(error.value)
    assert NO_BOUND[name] in str(error.value)
    assert "no betas" in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("DDPMScheduler", {"thresholding": True}, "thresholding"),
        ("DDPMScheduler", {"variance_type": "learned"}, "variance_type 'learned'"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, "timestep_type continuous"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "flow matching"),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, "flow matching"),
    ],
)  # fmt: skip
def test_settings_without_a_bound_are_refused_by_name(name, options, said) -> None:
    with pytest.raises(UsageError) as error:
        interpret((unet(), getattr(diffusers, name)(**options)))
    assert name in str(error.value)
    assert said in str(error.value)


def test_folders_that_cannot_be_measured_say_why(tmp_path, capsys) -> None:
    def said(folder: Path | str) -> str:
        assert main(["elbo", "--model", f"hf:{folder}", "--data", "digits"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        return error

    assert "nothing is downloaded" in said("google/ddpm-cifar10-32")
    assert "neither model_index.json nor config.json" in said(tmp_path)
    unet().save_pretrained(tmp_path / "alone")
    assert "no scheduler_config.json" in said(tmp_path / "alone")
    pickled = tmp_path / "pickled"
    unet().save_pretrained(pickled, safe_serialization=False)
    scheduler().save_pretrained(pickled)
    assert "no *.safetensors" in said(pickled)
    damaged = saved(tmp_path / "damaged", unet(), scheduler())
    weights = next((damaged / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    assert "damaged" in said(damaged)
    strange = saved(tmp_path / "strange", unet(), scheduler())
    config = strange / "unet" / "config.json"
    config.write_text(config.read_text().replace("UNet2DModel", "UNet9DModel"))
    assert "UNet9DModel" in said(strange)
    config.write_text("{")
    assert "cannot be read as JSON" in said(strange)
    classes = saved(tmp_path / "classes", unet(num_class_embeds=10), scheduler())
    assert "class_labels" in said(classes)
    flow = saved(tmp_path / "flow", unet(), diffusers.FlowMatchEulerDiscreteScheduler())
    assert "FlowMatchEulerDiscreteScheduler" in said(flow)
    index = tmp_path / "damaged" / "model_index.json"
    entries = json.loads(index.read_text())
    index.write_text(json.dumps({**entries, "vae": ["diffusers", "AutoencoderKL"]}))
    assert "latents of its vae" in said(tmp_path / "damaged")


def test_a_conditional_network_is_refused_by_what_it_asks_for() -> None:
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4, 8),
        norm_num_groups=2, cross_attention_dim=4, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip

    class Pipe:
        components = {"unet": model, "scheduler": scheduler()}  # noqa: RUF012

    with pytest.raises(UsageError, match="encoder_hidden_states"):
        interpret(Pipe())


def test_schedules_of_ours_agree_with_diffusers() -> None:
    for theirs, ours in (("linear", "linear"), ("squaredcos_cap_v2", "cosine")):
        made = diffusers.DDPMScheduler(1000, beta_schedule=theirs, beta_start=1e-4, beta_end=0.02)
        torch.testing.assert_close(
            read(made).schedule.alpha_bar, SCHEDULES[ours](1000).alpha_bar, rtol=2e-3, atol=1e-9
        )
