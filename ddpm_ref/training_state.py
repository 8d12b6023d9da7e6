"""What changes while a network is trained, and nothing else: the part of a run that a checkpoint must keep.

The random numbers are not part of it: `ddpm_ref.batches` computes them from the number of the step. (`loss_aware` draws of t look back at
earlier losses, which are.)
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ddpm_ref.config import TrainConfig
from ddpm_ref.network import NETWORKS, initialize
from ddpm_ref.network.foreign import seeded
from ddpm_ref.noise import NoiseStream
from ddpm_ref.optimization import RunningNorm, averaged_model, decay_of
from ddpm_ref.schedule import Schedule
from ddpm_ref.times import LossHistory

_HASHED_AT_ONCE = 1024


@dataclass
class TrainingState:
    """A run between two steps.

    Attributes:
        config: the choices.
        schedule: the noise schedule.
        shape: of one example, (C, H, W) or (D,).
        data_sha256: of the training images, so that a run is not continued on others.
        network: the weights being trained.
        ema: their average; `ema.module` is the network to evaluate.
        optimizer: AdamW with its moments.
        norm: the yardstick of the clipping.
        averages: further averages by half-life, which follow `network` as `ema` does.
        history: losses of earlier steps, where t is drawn by them; else None.
        step: how many steps are done.
        diverged: the number of the step that ended the run because its loss or gradient was not finite; None as long as none did.
    """

    config: TrainConfig
    schedule: Schedule
    shape: tuple[int, ...]
    data_sha256: str
    network: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    norm: RunningNorm
    averages: dict[float, AveragedModel] = field(default_factory=dict)
    history: LossHistory | None = None
    step: int = 0
    diverged: int | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that the optimizer moves (walking through a module's tree costs more than a small layer)."""
        return list(self.optimizer.param_groups[0]["params"])


def training_dtype(config: TrainConfig) -> torch.dtype:
    """The dtype of weights and data: float64 where asked for, else float32 (bfloat16 is autocast)."""
    return torch.float64 if config.precision == "float64" else torch.float32


def new_state(config: TrainConfig, shape: tuple[int, ...], data_sha256: str) -> TrainingState:
    """The state before the first step; its weights depend on the seed and the network's structure only.

    Args:
        config: the choices.
        shape: of one example, (C, H, W) or (D,).
        data_sha256: of the training images.
    """
    network = seeded(lambda: config.make_network(shape), config.seed)
    if config.network in NETWORKS:
        initialize(network, NoiseStream(config.seed))
    network = network.to(device=config.device, dtype=training_dtype(config)).train()
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return TrainingState(
        config=config,
        schedule=config.make_schedule(),
        shape=shape,
        data_sha256=data_sha256,
        network=network,
        ema=averaged_model(network, config.ema_decay),
        optimizer=torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay,
            fused=True,
        ),
        norm=RunningNorm(config.clip_factor, config.clip_decay),
        averages={h: averaged_model(network, decay_of(h)) for h in config.ema_half_lives},
        history=LossHistory(config.T) if config.timesteps == "loss_aware" else None,
    )


def content_hash(images: Tensor) -> str:
    """SHA-256 of shape and values: equal for equal images, whatever their floating-point dtype and device."""
    return hash_of(tuple(images.shape), images.detach().split(_HASHED_AT_ONCE))


def hash_of(shape: tuple[int, ...], parts: Iterable[Tensor]) -> str:
    """`content_hash` of images that come in parts, cut anywhere."""
    digest = hashlib.sha256(repr(shape).encode())
    for part in parts:
        digest.update(part.cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()
