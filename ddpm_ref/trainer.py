r"""Training as a generator: `for step in train(config)` is the loop, and the caller owns it.

One step (Ho et al. 2020, algorithm 1, for any parameterization and weighting): draw x_0, t and ε, form x_t, and descend

    ∇_θ (1/B) Σ_i (w_{t_i}/w̄) ‖f_θ(x_{t_i}, t_i) − y_i‖²/d,       y = target,   w̄ = mean of w over 1 … T, or 1.        (1)

Stop by leaving the loop, save with `save_checkpoint(path, step.state)`, evaluate `step.ema`, plot `step.loss`: none of that
needs a callback.

**Divergence is a result.** A loss or a gradient that is not finite ends the run with one last step marked `diverged`; the weights stay
as they were before it.

**Several processes.** Where `torch.distributed` is initialized, each of p processes takes B/p neighbouring positions of the global batch
(`ddpm_ref.batches`); gradients are averaged, so that the run is that of one process up to the order of summation. Every
process yields the same steps, with the losses of the whole batch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ddpm_ref.batches import Batch, Batches
from ddpm_ref.checkpoint import Checkpoint, check_same_run
from ddpm_ref.config import TrainConfig
from ddpm_ref.data import embedded
from ddpm_ref.objective import loss, weight
from ddpm_ref.optimization import gradient_norm, scale_gradients, warmed_up
from ddpm_ref.reverse import evaluation_mode
from ddpm_ref.schedule import Schedule
from ddpm_ref.training_state import TrainingState, content_hash, new_state, training_dtype
from ddpm_ref.validation import check_device, check_finite, check_floating

if dist.is_available():
    # Its functions keep, as a default argument, the process group that exists when the module is first imported, and optimizers
    # import it lazily. Imported too late, it keeps the group and gloo's threads alive past `destroy_process_group`; one that then
    # frees a tensor while the interpreter shuts down aborts the process (pytorch issue 190489).
    import torch.distributed.nn


@dataclass(frozen=True, eq=False)
class Step:
    """What one optimizer step did.

    Attributes:
        step: its number, from 1.
        loss: the batch's mean of `losses`, eq. (1).
        losses: per example, weighted, float32 `[B]` (float64 in float64 training) on the CPU, in batch order.
        t: the steps that they were drawn at, int64 `[B]` on the CPU.
        learning_rate: used in this step.
        gradient_norm: before clipping.
        clipped: the gradient was shortened.
        diverged: loss or gradient was not finite; the weights were not changed, and no step follows.
        state: the run after this step, to be saved; it lives on and changes with the next step.
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

    @property
    def network(self) -> nn.Module:
        """The weights being trained."""
        return self.state.network

    @property
    def ema(self) -> nn.Module:
        """Their average: the network to evaluate and to sample from."""
        model: nn.Module = self.state.ema.module
        return model


def train(
    config: TrainConfig, data: Tensor | None = None, *, resume: Checkpoint | None = None
) -> Iterator[Step]:
    """Train a network; one `Step` per optimizer step.

    Everything is checked here, before the first step is asked for.

    Args:
        config: the choices.
        data: images `[N, C, H, W]` or vectors `[N, D]`, floating point; None = the embedded data set that `config.data` names.
        resume: continue this run up to `config.steps`, bit for bit as if it had not stopped; its state moves on with it.

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
    _check_images(images)
    team = _Team.present()
    if config.batch_size % team.size:
        raise ValueError(
            f"batch_size = {config.batch_size} cannot be shared by {team.size} processes: pass a multiple of {team.size}"
        )
    state = _state(config, images, resume)
    _check_fits(state)
    images = images.to(device=config.device, dtype=training_dtype(config))
    return _steps(state, Batches(config, state.schedule, images), team)


def example_losses(config: TrainConfig, schedule: Schedule) -> "Callable[[Tensor, Batch], Tensor]":
    """The summands of eq. (1) as a function of (prediction, batch) → `[b]`, with w̄ worked out once."""
    weighting, space = config.make_weighting(), config.parameterization
    mean = 1.0
    if config.normalize_weights:
        every = torch.arange(1, schedule.T + 1)
        mean = weight(weighting, every, schedule, parameterization=space).mean().item()

    def losses(prediction: Tensor, batch: Batch) -> Tensor:
        raw = loss(
            prediction,
            batch.x0,
            batch.eps,
            batch.t,
            schedule,
            parameterization=space,
            weighting=weighting,
        )
        return raw / mean

    return losses


@dataclass(frozen=True)
class _Team:
    """This process among those that share each batch."""

    rank: int = 0
    size: int = 1

    @classmethod
    def present(cls) -> "_Team":
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def together(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages the gradients of the team."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def gather(self, mine: Tensor) -> Tensor:
        """Everybody's `[b]` as `[size·b]`, in the order of the batch."""
        if self.size == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts)


def _steps(state: TrainingState, batches: Batches, team: _Team) -> Iterator[Step]:
    config = state.config
    losses_of = example_losses(config, state.schedule)
    network = team.together(state.network)
    share = config.batch_size // team.size
    while state.step < config.steps:
        batch = batches.draw(state.step + 1, team.rank * share, share)
        with torch.enable_grad():  # the caller may stand in `no_grad`
            losses = losses_of(_predict(network, batch, config), batch)
            state.optimizer.zero_grad()
            losses.mean().backward()
        step = _finish(state, team.gather(losses.detach()), team.gather(batch.t))
        yield step
        if step.diverged:
            return


def _predict(network: nn.Module, batch: Batch, config: TrainConfig) -> Tensor:
    lower = config.precision == "bfloat16"
    with torch.autocast(batch.x_t.device.type, dtype=torch.bfloat16, enabled=lower):
        prediction: Tensor = network(batch.x_t, batch.t)
    return prediction.to(batch.x_t.dtype)


def _finish(state: TrainingState, losses: Tensor, t: Tensor) -> Step:
    """Clip, descend, average; or nothing of that where the run has diverged."""
    config = state.config
    loss_value, norm = torch.stack([losses.mean(), gradient_norm(state.parameters)]).tolist()
    learning_rate = warmed_up(config.learning_rate, state.step + 1, config.warmup_steps)
    step = Step(
        step=state.step + 1,
        loss=loss_value,
        losses=losses.cpu(),
        t=t.cpu(),
        learning_rate=learning_rate,
        gradient_norm=norm,
        clipped=False,
        diverged=not (math.isfinite(loss_value) and math.isfinite(norm)),
        state=state,
    )
    if step.diverged:
        return step
    scale = state.norm.clip(norm)
    if scale < 1.0:
        scale_gradients(state.parameters, scale)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.optimizer.step()
    state.ema.update_parameters(state.network)
    state.step += 1
    return replace(step, clipped=scale < 1.0)


def _state(config: TrainConfig, images: Tensor, resume: Checkpoint | None) -> TrainingState:
    digest = content_hash(images)
    if resume is None:
        return new_state(config, tuple(images.shape[1:]), digest)
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


def _check_images(images: Tensor) -> None:
    check_floating(data=images)
    if images.ndim not in (2, 4) or 0 in images.shape:
        raise ValueError(
            f"data has shape {list(images.shape)}; pass at least one image, [N, C, H, W], or one vector, [N, D]: "
            "for a single image use data[None]"
        )
    check_finite(data=images)
