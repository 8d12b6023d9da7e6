r"""Training as a generator: `for step in train(config)` is the loop, and the caller owns it.

One step (Ho et al. 2020, algorithm 1, for any parameterization and weighting): draw x_0, t and ε, form x_t, and descend

    ∇_θ (1/B) Σ_i ℓ_i,        ℓ_i the loss of an example (`ddpm_ref.training_loss` eq. 1).                           (1)

Stop by leaving the loop, save with `save_checkpoint(path, step.state)`, evaluate `step.ema`, plot `step.loss`: none of that
needs a callback.

**Divergence is a result.** A loss or a gradient that is not finite ends the run with one last step marked `diverged`; the weights stay
as they were before it.

**Several processes.** Where `torch.distributed` is initialized, each of p processes takes B/p neighbouring positions of the global batch
(`ddpm_ref.batches`); gradients are averaged, so that the run is that of one process up to the order of summation. Every
process yields the same steps, with the losses of the whole batch. With `accumulation` = a, each takes its rows in a parts, one after the
other: again the same step up to the order of summation.

**Time.** The memory of a batch lives through the run, one step waits for the device once (for its loss, norm, losses and steps together), and
images that are not in memory (`ddpm_ref.images`) are read ahead by worker processes.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from ddpm_ref.batches import Batch, Batches, Room
from ddpm_ref.checkpoint import Checkpoint, check_same_run
from ddpm_ref.config import TrainConfig
from ddpm_ref.data import embedded
from ddpm_ref.images import ImageSet, ahead, checked_parts
from ddpm_ref.network import NETWORKS
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.optimization import gradient_norm, scale_gradients, warmed_up
from ddpm_ref.reverse import evaluation_mode
from ddpm_ref.team import Team
from ddpm_ref.training_loss import Output, example_losses
from ddpm_ref.training_state import TrainingState, content_hash, hash_of, new_state, training_dtype
from ddpm_ref.validation import check_count, check_device, check_finite, check_floating


@dataclass(frozen=True, eq=False)
class Step:
    """What one optimizer step did.

    Attributes:
        step: its number, from 1.
        loss: the batch's mean of `losses`, eq. (1).
        losses: per example, weighted, float32 `[B]` (float64 in float64 training) on the CPU, in batch order.
        t: the steps that they were drawn at (with continuous t the nearest), int64 `[B]` on the CPU.
        learning_rate: used in this step.
        gradient_norm: before clipping.
        clipped: the gradient was shortened.
        diverged: loss or gradient was not finite; the weights were not changed, and no step follows.
        state: the run after this step, to be saved; it lives on and changes with the next step.
        compile_seconds: what `torch.compile` took before the first step of this call of `train`; 0 without it.
    """

    step: int
    loss: float
    losses: Tensor
    t: Tensor
    learning_rate: float
    gradient_norm: float
    clipped: bool
    diverged: bool
    state: TrainingState
    compile_seconds: float = 0.0

    @property
    def network(self) -> nn.Module:
        """The weights being trained."""
        return self.state.network

    @property
    def ema(self) -> nn.Module:
        """Their average: the network to evaluate and to sample from."""
        model: nn.Module = self.state.ema.module
        return model

    @property
    def averages(self) -> dict[float, nn.Module]:
        """Further averages by half-life (`ema_half_lives`)."""
        return {half_life: average.module for half_life, average in self.state.averages.items()}


def train(
    config: TrainConfig,
    data: Tensor | ImageSet | None = None,
    *,
    resume: Checkpoint | None = None,
    workers: int = 0,
) -> Iterator[Step]:
    """Train a network; one `Step` per optimizer step.

    Everything is checked here, before the first step is asked for.

    Args:
        config: the choices.
        data: images `[N, C, H, W]` or vectors `[N, D]`, floating point; None = the embedded data set that `config.data` names.
            A set of examples that is read as it is needed (`ddpm_ref.images`) serves as well, and gives the same run.
        resume: continue this run up to `config.steps`, bit for bit as if it had not stopped; its state moves on with it.
        workers: processes that read ahead from a set; they have no influence on the run.

    Raises:
        ValueError: images of a wrong shape or not finite, data that are not embedded, a batch that the processes cannot share
            equally, a network that cannot take the data's shape, a checkpoint of another run, a device that is not here, or a call inside `torch.inference_mode`.
        TypeError: integer images.
    """
    check_device(config.device)
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "train is called inside torch.inference_mode(), whose tensors take no gradient: call it outside"
        )
    images = embedded(config.data) if data is None else data
    check_count("workers", workers, least=0)
    _check_images(images if isinstance(images, Tensor) else _first(images))
    team = Team.present()
    _check_shares(config, team)
    state = _state(config, *_contents(images, workers), resume)
    _check_fits(state)
    return _steps(state, _Share.of(state, team, images, workers))


@dataclass(frozen=True, eq=False)
class _Share:
    """This process's part of every batch, in the pieces that are gone through one after the other."""

    team: Team
    batches: Batches
    pieces: tuple[tuple[int, int], ...]
    room: Room | None
    source: ImageSet | None
    stream: Iterator[Tensor] | None

    @classmethod
    def of(
        cls, state: TrainingState, team: Team, images: Tensor | ImageSet, workers: int
    ) -> "_Share":
        config = state.config
        rows = config.batch_size // team.size // config.accumulation
        begin = team.rank * rows * config.accumulation
        pieces = tuple((begin + rows * k, rows) for k in range(config.accumulation))
        if not isinstance(images, Tensor):
            many, history = len(images), state.history
            batches = Batches(config, state.schedule, None, count=many, history=history)
            numbers = _numbers(batches, pieces, state.step + 1, config.steps)
            return cls(team, batches, pieces, None, images, ahead(images, numbers, workers))
        images = images.to(device=config.device, dtype=training_dtype(config))
        batches = Batches(config, state.schedule, images, history=state.history)
        return cls(team, batches, pieces, Room.of(rows, images), None, None)

    def draw(self, step: int, piece: int) -> Batch:
        """The next piece: in order where the images are read ahead."""
        first, count = self.pieces[piece]
        x0 = None if self.stream is None else self._placed(next(self.stream))
        return self.batches.draw(step, first, count, x0=x0, room=self.room)

    def peek(self, step: int) -> Batch:
        """The first piece of a step, without moving on."""
        first, count = self.pieces[0]
        x0 = None
        if self.source is not None:
            numbers = self.batches.indices(step, first, count).tolist()
            x0 = self._placed(torch.stack([self.source[number] for number in numbers]))
        return self.batches.draw(step, first, count, x0=x0, room=self.room)

    def _placed(self, x0: Tensor) -> Tensor:
        config = self.batches.config
        return x0.to(device=config.device, dtype=training_dtype(config), non_blocking=True)


def _numbers(
    batches: Batches, pieces: tuple[tuple[int, int], ...], step: int, last: int
) -> Iterator[list[int]]:
    """Which images each piece of the coming steps needs."""
    for each in range(step, last + 1):
        for first, count in pieces:
            yield batches.indices(each, first, count).tolist()


def _steps(state: TrainingState, share: _Share) -> Iterator[Step]:
    config, team = state.config, share.team
    losses_of = example_losses(config, state.schedule)
    network, seconds = _ready(state, share)
    last = len(share.pieces) - 1
    while state.step < config.steps:
        state.optimizer.zero_grad()
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        for piece in range(last + 1):
            batch = share.draw(state.step + 1, piece)
            with (
                torch.enable_grad(),
                team.quiet(network, piece < last),
            ):  # the caller may stand in `no_grad`
                output = _predict(network, batch, config, state.step + 1, share.pieces[piece][0])
                counted, plain = losses_of(output, batch)
                (counted.mean() / len(share.pieces)).backward()
            seen.append((counted.detach(), plain.detach(), batch.step))
        step = _finish(state, *(team.gather(torch.cat(parts)) for parts in zip(*seen, strict=True)))
        yield replace(step, compile_seconds=seconds)
        if step.diverged:
            return


def _ready(state: TrainingState, share: _Share) -> tuple[nn.Module, float]:
    """The network as the loop calls it, and what compiling took: forwards and backwards once, with nothing kept of it."""
    config = state.config
    network = share.team.together(state.network)
    if not config.compile or state.step >= config.steps:
        return network, 0.0
    compiled = cast(nn.Module, torch.compile(network, dynamic=False))
    kept = [buffer.clone() for buffer in network.buffers()]
    began = time.perf_counter()
    batch = share.peek(state.step + 1)
    with torch.enable_grad():
        output = _predict(compiled, batch, config, state.step + 1, share.pieces[0][0])
        example_losses(config, state.schedule)(output, batch)[0].mean().backward()
    state.optimizer.zero_grad()
    seconds = time.perf_counter() - began
    with torch.no_grad():
        for buffer, before in zip(network.buffers(), kept, strict=True):
            buffer.copy_(before)
    return compiled, seconds


def _predict(
    network: nn.Module, batch: Batch, config: TrainConfig, step: int, first: int
) -> Output:
    lower = config.precision == "bfloat16"
    x_t, device = batch.x_t, batch.x_t.device.type
    if config.channels_last and x_t.ndim == 4:
        x_t = x_t.contiguous(memory_format=torch.channels_last)
    with _chance(config, step, first), torch.autocast(device, torch.bfloat16, enabled=lower):
        output = network(x_t, batch.time)
    if isinstance(output, tuple):
        return output[0].to(x_t.dtype), output[1].to(x_t.dtype)
    prediction: Tensor = output.to(x_t.dtype)
    return prediction


@contextmanager
def _chance(config: TrainConfig, step: int, first: int) -> Iterator[None]:
    """Dropout of a network from elsewhere as a function of (seed, step, position): ours have none."""
    if config.network in NETWORKS:
        yield
        return
    drawn = NoiseStream(config.seed).integers(
        (1,), low=0, high=1 << 31, use=Use.WEIGHTS, step=step, first_index=first
    )
    devices = [torch.device(config.device)] if config.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(drawn))
        yield


def _finish(state: TrainingState, losses: Tensor, plain: Tensor, t: Tensor) -> Step:
    """Clip, descend, average; or nothing of that where the run has diverged."""
    config = state.config
    measures = torch.stack([losses.mean(), gradient_norm(state.parameters)])
    (loss_value, norm), losses, plain, t = _brought(measures, losses, plain, t)
    learning_rate = warmed_up(
        config.learning_rate, state.step + 1, config.warmup_steps, config.decay_steps
    )
    step = Step(
        step=state.step + 1,
        loss=loss_value,
        losses=losses,
        t=t,
        learning_rate=learning_rate,
        gradient_norm=norm,
        clipped=False,
        diverged=not (math.isfinite(loss_value) and math.isfinite(norm)),
        state=state,
    )
    if step.diverged:
        state.diverged = step.step
        return step
    scale = state.norm.clip(norm)
    if scale < 1.0:
        scale_gradients(state.parameters, scale)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.optimizer.step()
    for average in (state.ema, *state.averages.values()):
        average.update_parameters(state.network)
    if state.history is not None:
        state.history.add(t, plain)
    state.step += 1
    state.diverged = None  # of a run that was resumed on another device, perhaps
    return replace(step, clipped=scale < 1.0)


def _brought(
    measures: Tensor, losses: Tensor, plain: Tensor, t: Tensor
) -> tuple[list[float], Tensor, Tensor, Tensor]:
    """All four on the CPU in one transfer: the one place where a step waits for its device. float64 holds each exactly."""
    if measures.device.type == "cpu":
        return measures.tolist(), losses, plain, t
    count = len(losses)
    together = torch.cat([part.double() for part in (measures, losses, plain, t)]).cpu()
    head, first, second, steps = together.split([2, count, count, count])
    return head.tolist(), first.to(losses.dtype), second.to(plain.dtype), steps.long()


def _contents(images: Tensor | ImageSet, workers: int) -> tuple[tuple[int, ...], str]:
    """(Shape of one example, hash of all); a set is read once from beginning to end for it."""
    if isinstance(images, Tensor):
        check_finite(data=images)
        return tuple(images.shape[1:]), content_hash(images)
    shape = tuple(images[0].shape)
    return shape, hash_of((len(images), *shape), checked_parts(images, workers))


def _first(images: ImageSet) -> Tensor:
    """The first example as a batch of one."""
    if not isinstance(images, ImageSet):
        raise TypeError(
            f"data is a {type(images).__name__}; pass a torch.Tensor [N, C, H, W], or a set with a length and items"
        )
    if len(images) == 0:
        raise ValueError("data has no example; pass at least one")
    example = images[0]
    check_floating(**{"data[0]": example})
    return example[None]


def _state(
    config: TrainConfig, shape: tuple[int, ...], digest: str, resume: Checkpoint | None
) -> TrainingState:
    if resume is None:
        return new_state(config, shape, digest)
    check_same_run(resume.config, config)
    if resume.state.data_sha256 != digest:
        raise ValueError(
            "the images differ from those that the checkpoint was trained on; pass the same data, or start a new run"
        )
    if resume.config.device != config.device:
        raise ValueError(
            f"the checkpoint was loaded to {resume.config.device}, the run is to go on on {config.device}: "
            f"load it with load_checkpoint(path, device={config.device!r})"
        )
    resume.state.config = config
    return resume.state


def _check_fits(state: TrainingState) -> None:
    """The network takes one example of the data's shape: what it cannot halve, for instance, is refused before step 1."""
    weight = next(state.network.parameters())
    example = torch.zeros(1, *state.shape, dtype=weight.dtype, device=weight.device)
    try:
        with evaluation_mode(state.network):
            state.network(example, torch.ones(1, dtype=torch.int64, device=weight.device))
    except RuntimeError as error:
        raise ValueError(
            f"network = {state.config.network!r} cannot take examples of shape {list(state.shape)}: {error}; choose a network "
            "for such data, or change its network_options"
        ) from error


def _check_shares(config: TrainConfig, team: Team) -> None:
    parts = team.size * config.accumulation
    if config.batch_size % parts:
        each = (
            f" in accumulation = {config.accumulation} parts each"
            if config.accumulation > 1
            else ""
        )
        raise ValueError(
            f"batch_size = {config.batch_size} cannot be shared by {team.size} processes{each}: pass a multiple of {parts}"
        )


def _check_images(images: Tensor) -> None:
    check_floating(data=images)
    if images.ndim not in (2, 4) or 0 in images.shape:
        raise ValueError(
            f"data has shape {list(images.shape)}; pass at least one image, [N, C, H, W], or one vector, [N, D]: "
            "for a single image use data[None]"
        )
