r"""What step k trains on: which images, at which t, with which noise.

Everything is a function of (seed, k, position i in the global batch) and of nothing else: not of the number of processes, not of how
a batch is split, not of what was drawn before. So p processes that each take B/p neighbouring positions see together the same
bits as one process, a resumed run continues where it stopped, and runs that share a seed are *paired*: they differ
in what is compared and in nothing else.

**Order.** Image number n = (k−1)·B + i of the run is entry n mod N of the permutation of epoch ⌊n/N⌋: the argsort of N uniforms drawn
for that epoch. Every epoch visits every image once.

**Steps.** `uniform`: t_i independent, uniform on 1 … T. `low-discrepancy` (Kingma et al. 2021, appendix I.1):

    t_i = 1 + ⌊T · ((u + i/B) mod 1)⌋,      one u ~ U(0, 1) per step,                                          (1)

each t_i is uniform by itself, and together they cover 1 … T evenly: the batch loss stays unbiased with less variance.

**Noise.** ε of position i is sample i at step k of `NoiseStream`; x_t follows in the same pass (`fused_q_sample`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.config import TrainConfig
from ddpm_ref.kernels import fused_q_sample
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Batch:
    """Positions `first` … of one global batch.

    Attributes:
        x0: data `[b, C, H, W]`.
        t: steps, int64 `[b]`.
        x_t: noisy data, as x0.
        eps: the noise in it, as x0.
    """

    x0: Tensor
    t: Tensor
    x_t: Tensor
    eps: Tensor


class Batches:
    """The batches of one run.

    Args:
        config: batch size, seed, how t is drawn, provider.
        schedule: the noise schedule.
        images: all training images `[N, C, H, W]`, on the device and in the dtype of the training.
    """

    def __init__(self, config: TrainConfig, schedule: Schedule, images: Tensor) -> None:
        self._config, self._schedule, self._images = config, schedule, images
        self._stream = NoiseStream(config.seed)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def draw(self, step: int, first: int = 0, count: int | None = None) -> Batch:
        """Positions `first` … `first + count − 1` of the batch of step 1, 2, …; all of them by default."""
        count = self._config.batch_size - first if count is None else count
        x0 = self._images[self._indices(step, first, count).to(self._images.device)]
        t = self._steps(step, first, count).to(x0.device)
        x_t, eps = fused_q_sample(
            x0,
            t,
            self._schedule,
            self._stream,
            step=step,
            first_index=first,
            provider=self._config.provider,
        )
        return Batch(x0, t, x_t, eps)

    def _indices(self, step: int, first: int, count: int) -> Tensor:
        begin = (step - 1) * self._config.batch_size + first
        return torch.cat(list(self._runs(begin, begin + count)))

    def _runs(self, begin: int, end: int) -> Iterator[Tensor]:
        """The stretch of the run's image numbers, one piece per epoch that it touches."""
        size = self._images.shape[0]
        while begin < end:
            epoch, offset = divmod(begin, size)
            taken = min(size - offset, end - begin)
            yield self._permutation(epoch)[offset : offset + taken]
            begin += taken

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            size = self._images.shape[0]
            keys = self._stream.uniform((size,), use=Use.ORDER, step=epoch, dtype=torch.float64)
            self._epoch, self._order = epoch, keys.argsort(stable=True)
        return self._order

    def _steps(self, step: int, first: int, count: int) -> Tensor:
        T = self._schedule.T
        if self._config.timesteps == "uniform":
            return self._stream.integers(
                (count,), low=1, high=T + 1, use=Use.TIMESTEP, step=step, first_index=first
            )
        shift = self._stream.uniform((1,), use=Use.TIMESTEP, step=step, dtype=torch.float64)
        position = torch.arange(first, first + count, dtype=torch.float64)
        points = (shift + position / self._config.batch_size) % 1.0
        return 1 + (points * T).long().clamp(max=T - 1)
