"""Training loops that take turns: ours, and the two libraries' own, on copies of one network.

| loop | what is theirs |
|---|---|
| `ddpm_ref`, `ddpm_ref compiled` | `train`: everything |
| `denoising-diffusion-pytorch` | its `Trainer.train` and `GaussianDiffusion`: noise, loss, Adam, clipping, `ema_pytorch` every tenth step |
| `diffusers` | the loop that its training guide shows: `DDPMScheduler`, `EMAModel`, cosine schedule, `accelerate`, AdamW, clipping |

Network, initial weights, batch, images and threads are the same. The images lie in memory for all of them: reading files would be a
contest of file formats. Each loop draws its own t and noise, and so, before any is timed, all are asked for the loss and the
gradient of one given batch: equal, or not timed.
"""

import contextlib
import importlib
import importlib.util
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.measure.throughput.proof import WrongResultError
from ddpm_ref.batches import Batch
from ddpm_ref.config import TrainConfig
from ddpm_ref.process import q_sample
from ddpm_ref.trainer import train
from ddpm_ref.training_loss import example_losses
from ddpm_ref.training_state import new_state

_ENDLESS, _SEED, _IMAGES = 10**9, 20_201_119, 512
_LOSS_TOLERANCE, _GRADIENT_TOLERANCE = 1e-5, 1e-4
"""Relative; float32 sums in another order, and peers' tables in float32."""

Call = Callable[[], object]
_Gradients = list[Tensor]


@dataclass(frozen=True)
class TrainingCase:
    """What all loops train.

    Attributes:
        name: for the report.
        shape: of one image.
        batch: images per step.
        steps_per_call: optimizer steps in one timed call, which enters and leaves a library's loop once.
        network_options: of the U-Net.
    """

    name: str
    shape: tuple[int, int, int]
    batch: int
    steps_per_call: int
    network_options: Mapping[str, Any] = field(default_factory=dict)

    def config(self, **choices: Any) -> TrainConfig:
        """Our configuration of it."""
        return replace(
            TrainConfig(
                seed=_SEED,
                steps=_ENDLESS,
                batch_size=self.batch,
                learning_rate=1e-4,
                network_options=dict(self.network_options),
            ),
            **choices,
        )

    def images(self) -> Tensor:
        """On [−1, 1], float32."""
        generator = torch.Generator().manual_seed(_SEED)
        return torch.rand((_IMAGES, *self.shape), generator=generator) * 2 - 1

    def network(self) -> nn.Module:
        """One network with the initial weights that all loops start from, and a last layer that is not zero."""
        network = new_state(self.config(), self.shape, "").network
        generator = torch.Generator().manual_seed(_SEED)
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
        return network


CASES = (
    TrainingCase(
        "8 × 8 grey, small U-Net",
        (1, 8, 8),
        64,
        8,
        {"base": 16, "multipliers": (1, 2), "attention": (1,)},
    ),
    TrainingCase(
        "32 × 32 colour, U-Net",
        (3, 32, 32),
        16,
        2,
        {"base": 32, "multipliers": (1, 2, 2), "attention": (2,)},
    ),
)


@dataclass(frozen=True)
class Loop:
    """One training loop.

    Attributes:
        name: as in the report.
        origin: own or peer.
        build: case → (one call of `steps_per_call` steps, seconds of compiling).
        loss: case, batch → loss and gradients by this loop's own formulas, at the shared weights.
        package: what must be installed.
    """

    name: str
    origin: str
    build: Callable[[TrainingCase], tuple[Call, float]]
    loss: Callable[[TrainingCase, Batch], tuple[float, _Gradients]]
    package: str = ""

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""
        missing = self.package and importlib.util.find_spec(self.package) is None
        return f"{self.package} is not installed" if missing else None


def prove(case: TrainingCase, loops: Mapping[str, Loop]) -> str:
    """Loss and gradient of one batch by every loop's own formulas.

    Raises:
        WrongResultError: one of them differs from ours.
    """
    batch = _given_batch(case)
    loss, gradients = _own_loss(case, batch)
    for loop in loops.values():
        found, slopes = loop.loss(case, batch)
        pairs = list(zip(slopes, gradients, strict=True))
        size = sum(float(b.square().sum()) for b in gradients) ** 0.5
        gap = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5 / size
        if abs(found / loss - 1) > _LOSS_TOLERANCE or gap > _GRADIENT_TOLERANCE:
            raise WrongResultError(
                f"{loop.name}: loss {found} against {loss}, gradient off by {gap:.1e} of its length: not timed"
            )
    return "loss and gradient of one batch equal those of every other loop, to rounding"


def _given_batch(case: TrainingCase) -> Batch:
    generator = torch.Generator().manual_seed(_SEED + 1)
    config = case.config()
    schedule = config.make_schedule()
    x0 = case.images()[: case.batch]
    eps = torch.randn(x0.shape, generator=generator)
    t = torch.randint(1, config.T + 1, (case.batch,), generator=generator)
    return Batch(x0, t, q_sample(x0, t, schedule, eps), eps, t, t, None, schedule)


def _gradients(network: nn.Module, loss: Tensor) -> tuple[float, _Gradients]:
    found = torch.autograd.grad(loss, list(network.parameters()))
    return loss.item(), list(found)


# ---------------------------------------------------------------- ours


def _own(**choices: Any) -> Callable[[TrainingCase], tuple[Call, float]]:
    def build(case: TrainingCase) -> tuple[Call, float]:
        run = train(case.config(**choices), case.images())
        first = next(run)
        return lambda: list(itertools.islice(run, case.steps_per_call)), first.compile_seconds

    return build


def _own_loss(case: TrainingCase, batch: Batch) -> tuple[float, _Gradients]:
    network = case.network()
    losses, _ = example_losses(case.config(), batch.schedule)(network(batch.x_t, batch.t), batch)
    return _gradients(network, losses.mean())


# ---------------------------------------------------------------- peers


class _Counted(nn.Module):
    """The network as denoising-diffusion-pytorch calls it: t from 0, and what it asks about."""

    self_condition = False

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels, self.out_dim = network, channels, channels

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        prediction: Tensor = self.network(x, t + 1)
        return prediction


def _gaussian_diffusion(case: TrainingCase, network: nn.Module) -> Any:
    library: Any = importlib.import_module("denoising_diffusion_pytorch")
    return library.GaussianDiffusion(
        _Counted(network, case.shape[0]),
        image_size=case.shape[-1],
        timesteps=case.config().T,
        beta_schedule="linear",
        objective="pred_noise",
    )


def _lucidrains(case: TrainingCase) -> tuple[Call, float]:
    library: Any = importlib.import_module("denoising_diffusion_pytorch")
    with tempfile.TemporaryDirectory() as folder:
        _hundred_pictures(case, Path(folder))
        trainer = library.Trainer(
            _gaussian_diffusion(case, case.network()),
            folder,
            train_batch_size=case.batch,
            train_lr=1e-4,
            save_and_sample_every=_ENDLESS,
            results_folder=f"{folder}/results",
            calculate_fid=False,
        )
    trainer.dl = _endless((case.images() + 1) / 2, case.batch)

    def call() -> None:
        trainer.train_num_steps = trainer.step + case.steps_per_call
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainer.train()

    call()
    return call, 0.0


def _hundred_pictures(case: TrainingCase, folder: Path) -> None:
    """The constructor wants a folder of images; the loop is then given the images in memory."""
    from PIL import Image

    picture = Image.new("L" if case.shape[0] == 1 else "RGB", case.shape[1:])
    for number in range(100):
        picture.save(folder / f"{number}.png")


def _lucidrains_loss(case: TrainingCase, batch: Batch) -> tuple[float, _Gradients]:
    network = case.network()
    diffusion = _gaussian_diffusion(case, network)
    return _gradients(network, diffusion.p_losses(batch.x0, batch.t - 1, noise=batch.eps))


def _scheduler(case: TrainingCase) -> Any:
    library: Any = importlib.import_module("diffusers")
    return library.DDPMScheduler(num_train_timesteps=case.config().T, beta_schedule="linear")


def _diffusers(case: TrainingCase) -> tuple[Call, float]:
    optimization: Any = importlib.import_module("diffusers.optimization")
    averages: Any = importlib.import_module("diffusers.training_utils")
    accelerate: Any = importlib.import_module("accelerate")
    accelerator, scheduler = accelerate.Accelerator(), _scheduler(case)
    model = case.network()
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    rate = optimization.get_scheduler(
        "cosine", optimizer=adam, num_warmup_steps=500, num_training_steps=10**6
    )
    average = averages.EMAModel(
        model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    model, adam, rate = accelerator.prepare(model, adam, rate)
    loader = _endless(case.images(), case.batch)

    def step() -> float:
        clean = next(loader)
        noise = torch.randn_like(clean)
        index = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),)).long()
        noisy = scheduler.add_noise(clean, noise, index)
        with accelerator.accumulate(model):
            loss = functional.mse_loss(model(noisy, index + 1).float(), noise.float())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            rate.step()
            adam.zero_grad()
        average.step(model.parameters())
        return float(loss.detach().item())

    def call() -> list[float]:
        return [step() for _ in range(case.steps_per_call)]

    call()
    return call, 0.0


def _diffusers_loss(case: TrainingCase, batch: Batch) -> tuple[float, _Gradients]:
    network, scheduler = case.network(), _scheduler(case)
    noisy = scheduler.add_noise(batch.x0, batch.eps, batch.t - 1)
    return _gradients(network, functional.mse_loss(network(noisy, batch.t), batch.eps))


def _endless(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Batches of shuffled rows for ever, as a `DataLoader` over a tensor gives them."""
    while True:
        order = torch.randperm(len(images))
        for rows in order[: len(order) // batch * batch].split(batch):
            yield images[rows]


LOOPS: dict[str, Loop] = {
    loop.name: loop
    for loop in (
        Loop("ddpm_ref", "own", _own(), _own_loss),
        Loop("ddpm_ref, channels last", "own", _own(channels_last=True), _own_loss),
        Loop("ddpm_ref, compiled", "own", _own(compile=True), _own_loss),
        Loop(
            "denoising-diffusion-pytorch",
            "peer",
            _lucidrains,
            _lucidrains_loss,
            "denoising_diffusion_pytorch",
        ),
        Loop("diffusers", "peer", _diffusers, _diffusers_loss, "diffusers"),
    )
}
"""Name → loop."""


def step_parts(
    case: TrainingCase, clock: Callable[[], float], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each part of one of our steps, eager, measured one after the other on a run of its own."""
    from ddpm_ref.batches import Batches, Room
    from ddpm_ref.optimization import gradient_norm

    config, images = case.config(), case.images()
    state = new_state(config, case.shape, "")
    batches = Batches(config, state.schedule, images)
    losses_of, room = example_losses(config, state.schedule), Room.of(case.batch, images)
    parts: dict[str, list[float]] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        began = clock()
        result = work()
        parts.setdefault(part, []).append(clock() - began)
        return result

    for step in range(1, rounds + 1):
        state.optimizer.zero_grad()
        batch = timed("batch: images, t, noise, x_t", partial(batches.draw, step, room=room))
        output = timed("network forwards", partial(state.network, batch.x_t, batch.t))
        losses, _ = timed("loss", partial(losses_of, output, batch))
        timed("network backwards", losses.mean().backward)
        timed("gradient norm", lambda: gradient_norm(state.parameters).item())
        timed("AdamW", state.optimizer.step)
        timed("weight average", partial(state.ema.update_parameters, state.network))
    return {part: values[rounds // 5 :] for part, values in parts.items()}
