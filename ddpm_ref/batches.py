r"""What step k trains on: which images, at which t, with which noise.

Everything is a function of (seed, k, position i in the global batch) and of nothing else: not of the number of processes, not of how
a batch is split, not of what was drawn before. So p processes that each take B/p neighbouring positions see together the same
bits as one process, a resumed run continues where it stopped, and runs that share a seed are *paired*: they differ
in what is compared and in nothing else. (`timesteps = "loss_aware"` alone looks back, at the losses of earlier steps, which all processes
know and a checkpoint keeps.)

**Order.** Image number n = (k−1)·B + i of the run is entry n mod N of the permutation of epoch ⌊n/N⌋: the argsort of N uniforms drawn
for that epoch. Every epoch visits every image once.

**Steps.** `ddpm_ref.times` draws t and says how much an example at t counts. With `continuous`, τ lies between the steps, and the batch has a
schedule of its own, whose steps are the batch's log-SNRs in order: every formula that needs λ_t alone holds there as it stands.

**Noise.** ε of position i is sample i at step k of `NoiseStream`; x_t follows in the same pass (`fused_q_sample`), into memory that the caller
may keep for the whole run (`Room`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.config import TrainConfig
from ddpm_ref.kernels import fused_q_sample
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.schedule import Schedule, schedule_from_log_snr
from ddpm_ref.times import LossHistory, Times, with_losses


@dataclass(frozen=True, eq=False)
class Batch:
    """Positions `first` … of one global batch.

    Attributes:
        x0: data `[b, *dims]`.
        t: steps of `schedule`, int64 `[b]`.
        x_t: noisy data, as x0.
        eps: the noise in it, as x0.
        time: what the network receives: t, or τ with continuous t, `[b]`.
        step: the step of the run's schedule that is nearest, int64 `[b]`: t itself but for continuous t.
        factor: how much each example counts, float64 `[b]`; None = all 1.
        schedule: the run's, or with continuous t the batch's own.
    """

    x0: Tensor
    t: Tensor
    x_t: Tensor
    eps: Tensor
    time: Tensor
    step: Tensor
    factor: Tensor | None
    schedule: Schedule


@dataclass(frozen=True, eq=False)
class Room:
    """Memory for one batch that is used again at every step.

    Attributes:
        x0: `[b, *dims]`.
        x_t: as x0.
        eps: as x0.
    """

    x0: Tensor
    x_t: Tensor
    eps: Tensor

    @classmethod
    def of(cls, count: int, images: Tensor) -> "Room":
        """For `count` rows of `images`."""
        shape = (count, *images.shape[1:])
        return cls(
            *(torch.empty(shape, dtype=images.dtype, device=images.device) for _ in range(3))
        )


class Batches:
    """The batches of one run.

    Args:
        config: batch size, seed, how t is drawn, provider.
        schedule: the noise schedule.
        images: all training images `[N, *dims]`, on the device and in the dtype of the training; None = they are passed to `draw`.
        count: N, where images are passed.
        history: losses of earlier steps, for `loss_aware`.
    """

    def __init__(
        self,
        config: TrainConfig,
        schedule: Schedule,
        images: Tensor | None,
        *,
        count: int | None = None,
        history: LossHistory | None = None,
    ) -> None:
        self.config, self._schedule, self._images = config, schedule, images
        self._count = len(images) if images is not None else count or 0
        self._stream, self._history = NoiseStream(config.seed), history
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self._plain_times = config.make_times(schedule)

    @property
    def times(self) -> Times:
        """How t is drawn next."""
        if self.config.timesteps == "loss_aware" and self._history is not None:
            return with_losses(self._plain_times, self._history)
        return self._plain_times

    def draw(
        self,
        step: int,
        first: int = 0,
        count: int | None = None,
        *,
        x0: Tensor | None = None,
        room: Room | None = None,
    ) -> Batch:
        """Positions `first` … `first + count − 1` of the batch of step 1, 2, …; all of them by default.

        Args:
            step: of the optimizer, from 1.
            first: position of the first row.
            count: rows.
            x0: the images of these positions, where the run's images are not in memory.
            room: memory to use; the batch is valid until it is used again.
        """
        count = self.config.batch_size - first if count is None else count
        if x0 is None:
            x0 = self._rows(step, first, count, room)
        times = self.times
        if self.config.continuous:
            return self._between(times, x0, step, first, room)
        t = times.draw(self._stream, step, first, count, self.config.batch_size)
        factor = times.weights[t - 1].to(x0.device) if times.weighted else None
        t = t.to(x0.device)
        x_t, eps = self._noised(x0, t, self._schedule, step, first, room)
        return Batch(x0, t, x_t, eps, t, t, factor, self._schedule)

    def indices(self, step: int, first: int, count: int) -> Tensor:
        """Which images these positions are, int64 `[count]`."""
        begin = (step - 1) * self.config.batch_size + first
        return torch.cat(list(self._runs(begin, begin + count)))

    def _rows(self, step: int, first: int, count: int, room: Room | None) -> Tensor:
        assert self._images is not None  # else x0 is passed
        indices = self.indices(step, first, count).to(self._images.device)
        if room is None:
            return self._images[indices]
        return torch.index_select(self._images, 0, indices, out=room.x0)

    def _noised(
        self, x0: Tensor, t: Tensor, schedule: Schedule, step: int, first: int, room: Room | None
    ) -> tuple[Tensor, Tensor]:
        return fused_q_sample(
            x0,
            t,
            schedule,
            self._stream,
            step=step,
            first_index=first,
            provider=self.config.provider,
            out=None if room is None else (room.x_t, room.eps),
        )

    def _between(self, times: Times, x0: Tensor, step: int, first: int, room: Room | None) -> Batch:
        """Continuous t: the batch's log-SNRs, sorted, are the schedule in which its formulas are written."""
        points = times.points(self._stream, step, first, len(x0), self.config.batch_size)
        tau, log_snr, weight = times.between(points)
        rising, place = torch.unique(log_snr, return_inverse=True)
        own = schedule_from_log_snr(rising.flip(0))
        t = (len(rising) - place).to(x0.device)
        x_t, eps = self._noised(x0, t, own, step, first, room)
        nearest, factor = tau.round().long(), weight.to(x0.device) if times.weighted else None
        time = tau.to(device=x0.device, dtype=x0.dtype)
        return Batch(x0, t, x_t, eps, time, nearest.to(x0.device), factor, own)

    def _runs(self, begin: int, end: int) -> Iterator[Tensor]:
        """The stretch of the run's image numbers, one piece per epoch that it touches."""
        while begin < end:
            epoch, offset = divmod(begin, self._count)
            taken = min(self._count - offset, end - begin)
            yield self._permutation(epoch)[offset : offset + taken]
            begin += taken

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            shape = (self._count,)
            keys = self._stream.uniform(shape, use=Use.ORDER, step=epoch, dtype=torch.float64)
            self._epoch, self._order = epoch, keys.argsort(stable=True)
        return self._order
