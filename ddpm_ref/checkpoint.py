"""Checkpoints: a run that stops and goes on, and a trained model that others can load.

A checkpoint is one file of `torch.save` with nothing but tensors, numbers and text in it, so that loading one runs no code
(`weights_only=True`). It is written beside its destination and then renamed: a reader finds the old file or the new
one, never half of one. A resumed run continues bit for bit, because everything random is a function of the step.
"""

import dataclasses
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddpm_ref.config import TrainConfig
from ddpm_ref.schedule import Schedule
from ddpm_ref.training_state import TrainingState, new_state

FORMAT = "ddpm_ref checkpoint"
VERSION = 1
_FREE_ON_RESUME = ("steps", "device", "provider")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        state: the run; continue it with `train(config, data, resume=checkpoint)`.
    """

    state: TrainingState

    @property
    def config(self) -> TrainConfig:
        """The choices of the run; `config.parameterization` says what the model predicts."""
        return self.state.config

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of the training."""
        return self.state.schedule

    @property
    def model(self) -> nn.Module:
        """The averaged network in eval mode: `model(x_t, t)`, t in 1 … T."""
        model: nn.Module = self.state.ema.module.eval()
        return model

    @property
    def step(self) -> int:
        """How many optimizer steps it has seen."""
        return self.state.step


def save_checkpoint(path: str | os.PathLike[str], state: TrainingState) -> Path:
    """Write `state` to `path`, replacing what is there in one motion.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    destination = Path(path)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save(_payload(state), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, destination)
    finally:
        partial.unlink(missing_ok=True)
    return destination


def load_checkpoint(path: str | os.PathLike[str], device: str | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: a file that `save_checkpoint` wrote.
        device: where to put the networks; default: the device of the training.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this format and version.
    """
    payload = _read(path)
    config = TrainConfig.from_toml(payload["config"])
    if device is not None:
        config = dataclasses.replace(config, device=device)
    state = new_state(config, tuple(payload["shape"]), payload["data_sha256"])
    state.network.load_state_dict(payload["network"])
    state.ema.load_state_dict(payload["ema"])
    state.optimizer.load_state_dict(payload["optimizer"])
    state.schedule = Schedule(**payload["schedule"])
    state.norm.total, state.norm.weight = payload["running_norm"]
    for half_life, average in state.averages.items():
        average.load_state_dict(payload["averages"][repr(half_life)])
    if state.history is not None:
        state.history.losses, state.history.seen = payload["history"]
    state.step = payload["step"]
    return Checkpoint(state)


def check_same_run(saved: TrainConfig, wanted: TrainConfig) -> None:
    """A run is continued with its own choices; only `steps`, `device` and `provider` may change.

    Raises:
        ValueError: another entry differs.
    """
    for entry in dataclasses.fields(TrainConfig):
        old, new = getattr(saved, entry.name), getattr(wanted, entry.name)
        if old != new and entry.name not in _FREE_ON_RESUME:
            raise ValueError(
                f"{entry.name} = {new!r}, but the checkpoint was trained with {old!r}; a run is resumed with its own "
                f"configuration (only {', '.join(_FREE_ON_RESUME)} may change): start a new run instead"
            )


def _payload(state: TrainingState) -> dict[str, Any]:
    schedule = state.schedule
    return {
        "format": FORMAT,
        "version": VERSION,
        "config": state.config.to_toml(),
        "schedule": {
            "beta": schedule.beta,
            "log_snr": schedule.log_snr,
            "timesteps": schedule.timesteps,
        },
        "shape": list(state.shape),
        "data_sha256": state.data_sha256,
        "network": state.network.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "running_norm": [state.norm.total, state.norm.weight],
        "averages": {repr(h): average.state_dict() for h, average in state.averages.items()},
        "history": [] if state.history is None else [state.history.losses, state.history.seen],
        "step": state.step,
    }


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is not a checkpoint ({type(error).__name__} on reading it): "
            "pass a file that save_checkpoint (or `ddpm-bench train`) wrote"
        ) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(
            f"{os.fspath(path)!r} holds no {FORMAT}; for another library's model pass a model function instead"
        )
    if payload["version"] != VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} has checkpoint version {payload['version']}, this release reads {VERSION}: "
            "load it with the release that wrote it"
        )
    return payload
