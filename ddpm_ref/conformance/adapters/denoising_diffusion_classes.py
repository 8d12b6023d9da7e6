"""Other classes of denoising-diffusion-pytorch, and of ema-pytorch that it trains with, as one constructs them.

`WeightedObjectiveGaussianDiffusion` (a prediction of ε, one of x_0, and two logits that weigh them), `ContinuousTimeGaussianDiffusion`,
`FIDEvaluation` (around a stub for its Inception network), `ema_pytorch.EMA`, and `GaussianDiffusion` on the float32 buffers that it has.
"""

import importlib
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ref.conformance.adapters.denoising_diffusion_calls import (
    IMAGE_SIZE,
    PACKAGE,
    image,
    library,
    options,
)
from ddpm_ref.conformance.adapters.denoising_diffusion_options import Option
from ddpm_ref.conformance.adapters.denoising_diffusion_pytorch import DenoisingDiffusion
from ddpm_ref.conformance.adapters.instruments import (
    Recorder,
    float64_tables,
    given_noise,
    installed_version,
    replaced,
)
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered
from ddpm_ref.conformance.setting import Setting

_LIBRARY = "denoising-diffusion-pytorch"
_T = 100
_CERTAIN = 1e4
"""A logit that makes the other's share exactly 0."""


class AsInstalled(DenoisingDiffusion):
    """The same calls on the float32 buffers that the library registers, float64 samples included."""

    name = f"{_LIBRARY}: buffers as installed"
    dtypes = (torch.float64, torch.float32)
    table_dtype = torch.float32

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        """It reads no buffer: not asked again."""
        raise self._missing("Gaussian KL of its own")

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        """It reads no buffer: not asked again."""
        raise self._missing("discretized likelihood of its own")

    def settings(self) -> Sequence[Setting]:
        """The linear schedule."""
        return (Setting("linear", 1000),)

    def kept(self, dtype: torch.dtype) -> torch.dtype:
        """Float32, whatever the samples are."""
        return torch.float32 if dtype == torch.float64 else dtype


class WeightedObjective(Option):
    """`WeightedObjectiveGaussianDiffusion`: its losses, its reverse mean, and the step that sampling takes."""

    one_step_a_call = True
    name = f"{_LIBRARY}: WeightedObjectiveGaussianDiffusion"
    dtypes = (torch.float64, torch.float32)

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`p_mean_variance`, all weight on the prediction of ε or on that of x_0."""
        if source not in ("eps", "x0") or to != "mean":
            raise NotOffered("eps and x0 to the mean")
        chain = _weighted(setting, source, prediction)
        mean, *_ = chain.p_mean_variance(x=image(x_t), t=self.index(t), clip_denoised=False)
        converted: Tensor = mean
        return converted.reshape(x_t.shape)

    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        """`p_losses` with the two side losses weighted 0 and all weight on x_0: what is left is its squared error."""
        if (parameterization, weighting) != ("x0", "simple_x0"):
            raise NotOffered("shown for x0 with weight 1")
        chain = _weighted(setting, "x0", prediction)
        value: Tensor = chain.p_losses(
            image(x0), self.index(t), noise=image(eps), loss_reduction="none"
        )
        return value

    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        """`p_sample`, one sample at a time, x_t within its clipping."""
        if sampler != "ddpm" or parameterization not in ("eps", "x0"):
            raise NotOffered("ddpm from eps and x0")
        steps = []
        for k, index in enumerate(self.index(t).tolist()):
            chain = _weighted(setting, parameterization, prediction[k : k + 1])
            with given_noise(library(), image(noise[k : k + 1])):
                steps.append(chain.p_sample(image(x_t[k : k + 1]), index)[0].clone())
        return torch.cat(steps).reshape(x_t.shape)


def _weighted(setting: Setting, source: str, prediction: Tensor) -> Any:
    """The class around a network that says `prediction` and gives it all the weight."""
    said, none = image(prediction), torch.zeros_like(image(prediction))
    first, second = (said, none) if source == "eps" else (none, said)
    certain = torch.full_like(said, _CERTAIN)
    logits = (certain, -certain) if source == "eps" else (-certain, certain)
    stub = Recorder(torch.cat([first, second, *logits], dim=1))
    stub.out_dim = 4
    module = importlib.import_module(f"{PACKAGE}.weighted_objective_gaussian_diffusion")
    wide = prediction.dtype == torch.float64
    with float64_tables(library()) if wide else nullcontext():
        return module.WeightedObjectiveGaussianDiffusion(
            stub,
            pred_noise_loss_weight=0.0,
            pred_x_start_loss_weight=0.0,
            **options(setting, "pred_noise"),
        )


def _linear(u: float) -> float:
    return -math.log(math.expm1(1e-4 + 10 * u**2))


def _cosine(u: float) -> float:
    return -2 * math.log(math.tan((u + 0.008) / 1.008 * math.pi / 2))


_CONTINUOUS: dict[str, Callable[[float], float]] = {"linear": _linear, "cosine": _cosine}
"""log-SNR at time u, as Kingma et al. 2021 and Nichol & Dhariwal 2021 have it."""


class ContinuousTime(Option):
    """`ContinuousTimeGaussianDiffusion` at the times t/101: the step from our t = 1 to data does not exist there."""

    name = f"{_LIBRARY}: ContinuousTimeGaussianDiffusion"
    dtypes = (torch.float64, torch.float32)

    def settings(self) -> Sequence[Setting]:
        """Its two schedules, from the formulas of log-SNR."""
        return tuple(
            Setting(
                f"{name} in continuous time",
                _T,
                log_snr=tuple(formula(k / (_T + 1)) for k in range(1, _T + 1)),
            )
            for name, formula in _CONTINUOUS.items()
        )

    def tables(self, setting: Setting) -> dict[str, Tensor]:
        """`log_snr(time)`."""
        every = self._time(torch.arange(1, _T + 1), torch.float64)
        return {"log_snr": _continuous(setting, None).log_snr(every)}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`q_sample`."""
        noisy: Tensor = _continuous(setting, None).q_sample(x0, self._time(t, x0.dtype), noise)[0]
        return noisy

    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        """`p_losses`, plain or with `min_snr_loss_weight`."""
        if parameterization != "eps" or weighting not in ("simple", "min_snr"):
            raise NotOffered("it predicts eps, weighted with simple or min_snr")
        chain = _continuous(setting, image(prediction), min_snr=weighting == "min_snr")
        value: Tensor = chain.p_losses(
            image(x0), self._time(t, x0.dtype), noise=image(eps), loss_reduction="none"
        )
        return value

    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        """`p_sample` from time t/101 to (t − 1)/101, t ≥ 2, without clipping."""
        if (sampler, parameterization) != ("ddpm", "eps") or bool((t < 2).any()):
            raise NotOffered("ddpm from eps, between two noisy times")
        now, then = self._time(t, x_t.dtype), self._time(t - 1, x_t.dtype)
        module = importlib.import_module(f"{PACKAGE}.continuous_time_gaussian_diffusion")
        steps = []
        for k in range(len(t)):
            chain = _continuous(setting, prediction[k : k + 1])
            with given_noise(module, noise[k : k + 1]):
                steps.append(chain.p_sample(x_t[k : k + 1], now[k], then[k]))
        return torch.cat(steps)

    def _time(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        return (t.to(torch.float64) / (_T + 1)).to(wanted)


def _continuous(setting: Setting, answer: Tensor | None, *, min_snr: bool = False) -> Any:
    """The class around a stub, with one parameter for its device."""
    stub = Recorder(answer)
    stub.register_parameter("place", nn.Parameter(torch.zeros(())))
    stub.register_buffer("random_or_learned_sinusoidal_cond", torch.tensor(True))
    stub.self_condition = False
    module = importlib.import_module(f"{PACKAGE}.continuous_time_gaussian_diffusion")
    return module.ContinuousTimeGaussianDiffusion(
        stub,
        image_size=IMAGE_SIZE,
        channels=1,
        noise_schedule=setting.name.split()[0],
        clip_sample_denoised=False,
        min_snr_loss_weight=min_snr,
    )


class FrechetEvaluation(Option):
    """`FIDEvaluation` with a `stats_dir` of its own for every comparison; a stub stands for the Inception network."""

    name = f"{_LIBRARY}: FIDEvaluation, a folder for each data set"

    def features(self, images: Tensor) -> Tensor:
        """`calculate_inception_features`."""
        with tempfile.TemporaryDirectory() as folder, _evaluation(images, images, folder) as judge:
            found: Tensor = judge.calculate_inception_features(images)
        return found

    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        """`fid_score`."""
        with tempfile.TemporaryDirectory() as folder:
            return _score(real, generated, folder)


class OneResultsFolder(FrechetEvaluation):
    """`FIDEvaluation` as installed: real statistics are kept in one `stats_dir`, by no key but the file's name."""

    name = f"{_LIBRARY}: FIDEvaluation, one results folder"

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        """`fid_score` of an evaluation constructed anew."""
        return _score(real, generated, self._folder)


class _Pooled(nn.Module):
    """In the place of Inception: area averages of 2 × 2 pixels and their squares, `[N, F, 1, 1]`."""

    BLOCK_INDEX_BY_DIM = {2048: 0}  # noqa: RUF012 - the library's own name and form

    def __init__(self, blocks: object) -> None:
        super().__init__()

    def forward(self, images: Tensor) -> list[Tensor]:
        """One block."""
        pooled = nn.functional.adaptive_avg_pool2d(images.double(), 2).flatten(1)
        return [torch.cat([pooled, pooled**2], 1)[..., None, None]]


class _Sampler(nn.Module):
    """Hands out images that are there already."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._rest = images

    def sample(self, batch_size: int) -> Tensor:
        """The next ones."""
        drawn, self._rest = self._rest[:batch_size], self._rest[batch_size:]
        return drawn


@contextmanager
def _evaluation(real: Tensor, generated: Tensor, folder: str) -> Iterator[Any]:
    module: ModuleType = importlib.import_module(f"{PACKAGE}.fid_evaluation")

    def silent(iterable: Any, **options: object) -> Any:
        return iterable

    with replaced(module, "InceptionV3", _Pooled), replaced(module, "tqdm", silent):
        judge = module.FIDEvaluation(
            max(
                len(real), len(generated)
            ),  # one batch of either: it asks for as many real as generated ones
            iter((real,)),
            _Sampler(generated),
            channels=real.shape[1],
            stats_dir=folder,
            device="cpu",
            num_fid_samples=len(generated),
        )
        judge.print_fn = lambda *words: None
        yield judge


def _score(real: Tensor, generated: Tensor, folder: str) -> float:
    with _evaluation(real, generated, folder) as judge:
        return float(judge.fid_score())


class MovingAverage(Implementation):
    """`ema_pytorch.EMA` as constructed: copies for 100 updates, then every tenth, its decay rising as 1 − n^(−2/3)."""

    name = "ema-pytorch: EMA as constructed"
    table_dtype = torch.float32

    def __init__(self) -> None:
        importlib.import_module("ema_pytorch")
        self.version = installed_version("ema-pytorch")
        self.conventions = (
            Convention(
                "the average begins late and is warmed up",
                "`update_after_step=100`, `update_every=10`, and a decay of 1 − (1 + n)^(−2/3), n the updates since, up to `beta`",
                "ema_pytorch/ema_pytorch.py, EMA.update and get_current_decay",
                _FixedDecay,
                ("I22",),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """It knows no schedule."""
        return ()

    def ema(self, values: Tensor, decay: float) -> Tensor:
        """`EMA(model, beta=decay)`, `update()` after each value."""
        return _averaged(values, {"beta": decay})


class _FixedDecay(MovingAverage):
    """Reads it with every option of its warm-up switched off."""

    def ema(self, values: Tensor, decay: float) -> Tensor:
        """As the base class, at one decay from the second value on."""
        fixed = {"beta": decay, "min_value": decay, "update_after_step": 0, "update_every": 1}
        return _averaged(values, fixed)


def _averaged(values: Tensor, options: dict[str, Any]) -> Tensor:
    model = nn.Linear(1, 1, bias=False).to(values.dtype)
    average = importlib.import_module("ema_pytorch").EMA(model, **options)
    seen = []
    for value in values:
        model.weight.data.fill_(value)
        average.update()
        seen.append(average.ema_model.weight.detach().flatten().clone())
    return torch.cat(seen)


def implementations() -> tuple[Implementation, ...]:
    """Each class once."""
    return (
        AsInstalled(),
        WeightedObjective(),
        ContinuousTime(),
        FrechetEvaluation(),
        OneResultsFolder(),
        MovingAverage(),
    )
