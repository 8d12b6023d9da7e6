"""Checkpoints: a run that stops and goes on, and a trained model that others can load.

A checkpoint is one file of `torch.save` with nothing but tensors, numbers and text in it, so that loading one runs no code
(`weights_only=True`); a run whose network comes from a user's file (`network = "FILE.py:FACTORY"`) needs that file run, and says so. It is
written beside its destination, flushed to the disk and then renamed: a reader finds the old file or the new one, never half of one.
A resumed run continues bit for bit, because everything random is a function of the step.

**Its hash.** After the archive of `torch.save` (which `torch.load` reads as ever) stands one line, the SHA-256 of all bytes before it. It is
checked before anything is read: a file of which a single bit has changed is refused. Files of version 1, which older releases wrote, have no
such line and are loaded as they are, with a warning that nothing could be checked; saving one again gives it its hash.
"""

import dataclasses
import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddpm_ref.config import TrainConfig
from ddpm_ref.schedule import Schedule
from ddpm_ref.training_state import TrainingState, new_state

FORMAT = "ddpm_ref checkpoint"
_VERSION = 2
_SEAL = b"\nsha256 of the bytes before this line: "
_SEALED = len(_SEAL) + 64 + 1
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
        """The averaged network in eval mode: `model(x_t, t)`, t in 1 … T.

        Raises:
            ValueError: the run diverged. What it left is `state.ema.module`, to look into; it is not a model to be scored.
        """
        if self.state.diverged is not None:
            raise ValueError(
                f"the run diverged at step {self.state.diverged}: the weights of step {self.step} that it left are not a model to "
                "be scored; train again with a smaller learning_rate (to look into them: checkpoint.state.ema.module)"
            )
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
        seal = _SEAL + _digest(partial).encode() + b"\n"
        with open(partial, "ab") as file:
            file.write(seal)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, destination)
        _flush_folder(destination.parent)
    finally:
        partial.unlink(missing_ok=True)
    return destination


def load_checkpoint(
    path: str | os.PathLike[str], device: str | None = None, *, run_code: bool = False
) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: a file that `save_checkpoint` wrote.
        device: where to put the networks; default: the device of the training.
        run_code: run the file that a `network = "FILE.py:FACTORY"` names, without which such a network cannot be made.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this format and version, bytes that differ from those that were written, or a network
            from a file without `run_code`.
    """
    payload = _read(path)
    config = TrainConfig.from_toml(payload["config"])
    if config.runs_code and not run_code:
        raise ValueError(
            f"{os.fspath(path)!r} was trained with network = {config.network!r}, and loading it runs that file: if you "
            "trust it, pass run_code=True"
        )
    if device is not None:
        config = dataclasses.replace(config, device=device)
    try:
        return Checkpoint(_restored(config, payload))
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise _not_whole(path, error) from error


def _restored(config: TrainConfig, payload: dict[str, Any]) -> TrainingState:
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
    state.diverged = payload.get("diverged")  # which older releases did not say
    return state


def _not_whole(path: str | os.PathLike[str], error: Exception) -> Exception:
    """The error for a file that cannot be read as a checkpoint; lack of memory is not the file's fault."""
    cause = str(error).partition("\n")[0] or type(error).__name__
    if isinstance(error, MemoryError) or "allocate memory" in cause or "out of memory" in cause:
        return MemoryError(f"{os.fspath(path)!r} does not fit into memory ({cause})")
    return ValueError(
        f"{os.fspath(path)!r} is not a checkpoint ({type(error).__name__} on reading it: {cause}): "
        "pass a file that save_checkpoint (or `ddpm-bench train`) wrote"
    )


def saved_steps(path: str | os.PathLike[str]) -> int:
    """How many steps a checkpoint has seen; nothing is built, and no code of a user's runs."""
    return int(_read(path)["step"])


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
        "version": _VERSION,
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
        "diverged": state.diverged,
    }


def _digest(path: str | os.PathLike[str], length: int | None = None) -> str:
    """SHA-256 of the first `length` bytes of a file, all of them by default."""
    digest, left = hashlib.sha256(), os.path.getsize(path) if length is None else length
    with open(path, "rb") as file:
        while left and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    """The rename itself reaches the disk (a folder cannot be opened for that everywhere)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_seal(path: str | os.PathLike[str]) -> bool:
    """Whether the file ends with the hash of its bytes; one that ends with another is refused."""
    length = max(os.path.getsize(path) - _SEALED, 0)
    with open(path, "rb") as file:
        file.seek(length)
        line = file.read()
    if not line.startswith(_SEAL):
        return False
    if line != _SEAL + _digest(path, length).encode() + b"\n":
        raise ValueError(
            f"{os.fspath(path)!r} is damaged: its bytes are not those that were written (their SHA-256 differs); "
            "take a copy that is not"
        )
    return True


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    if os.path.isdir(path):
        raise ValueError(f"{os.fspath(path)!r} is a folder: pass the checkpoint.pt in it")
    sealed = _check_seal(path)
    try:
        # torch's remarks on bytes that are not a checkpoint: our one line follows
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # what damaged bytes make torch raise is listed nowhere
        raise _not_whole(path, error) from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(
            f"{os.fspath(path)!r} holds no {FORMAT}; for another library's model pass a model function instead"
        )
    if payload.get("version") not in (1, _VERSION):
        raise ValueError(
            f"{os.fspath(path)!r} has checkpoint version {payload.get('version')}, this release reads 1 and {_VERSION}: "
            "load it with the release that wrote it"
        )
    if payload["version"] == _VERSION and not sealed:
        raise ValueError(
            f"{os.fspath(path)!r} is damaged: the line with its SHA-256 is missing or changed; take a copy that is not"
        )
    if payload["version"] == 1:
        warnings.warn(
            f"{os.fspath(path)} was written by an older release, without a hash: whether its bytes are intact cannot be "
            "checked",
            stacklevel=3,
        )
    return payload
