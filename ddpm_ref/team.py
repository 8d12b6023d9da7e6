"""The processes that share a batch: who takes which rows, and how the rows come together again.

Where `torch.distributed` is not initialized there is one process, and everything here does nothing.

**Shares.** n rows are cut into p neighbouring pieces whose sizes differ by one at most, in the order of the ranks; nothing is padded. What is
computed for a row depends on its global index alone (`NoiseStream`), so that p processes together have the rows of one.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ddpm_ref.reverse import Model, checked_output

if dist.is_available():
    # Its functions keep, as a default argument, the process group that exists when the module is first imported, and optimizers
    # import it lazily. Imported too late, it keeps the group and gloo's threads alive past `destroy_process_group`; one that then
    # frees a tensor while the interpreter shuts down aborts the process (pytorch issue 190489).
    import torch.distributed.nn


@dataclass(frozen=True)
class Team:
    """This process among those that work together.

    Attributes:
        rank: 0 … size − 1.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def present(cls) -> "Team":
        """The initialized process group, or one process."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def together(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages the gradients of the team."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def quiet(self, network: nn.Module, wanted: bool) -> AbstractContextManager[object]:
        """Where `wanted`, a context in which gradients add up here and are not averaged yet."""
        if wanted and isinstance(network, DistributedDataParallel):
            return network.no_sync()
        return nullcontext()

    def gather(self, mine: Tensor) -> Tensor:
        """Everybody's `[b]` as `[size·b]`, in the order of the batch."""
        if self.size == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts)

    def share(self, rows: int, rank: int | None = None) -> tuple[int, int]:
        """(first row, number of rows) of a rank, this one's by default: unequal by one row at most."""
        place = self.rank if rank is None else rank
        first, last = rows * place // self.size, rows * (place + 1) // self.size
        return first, last - first

    def sharing(self, model: Model) -> Model:
        """The model with the rows of each call shared: each process evaluates its own, and all have the answer to every row.

        Every process must make the same calls, as `elbo`, `estimate_elbo`, `validation_loss` and `sample` do with equal arguments. The
        result is that of one process, up to what the model's own rounding owes to the size of its batch.
        """
        return _Shared(model, self) if self.size > 1 else model

    def assemble(self, mine: Tensor, rows: int) -> Tensor:
        """All rows `[rows, *dims]` on every process, from everybody's share of them.

        Args:
            mine: this process's rows, as many as `share(rows)` says.
            rows: of all processes together.

        Raises:
            ValueError: another number of rows.
        """
        count = self.share(rows)[1]
        if len(mine) != count:
            raise ValueError(
                f"rank {self.rank} has {len(mine)} of {rows} rows, its share is {count}: compute the rows that share() names"
            )
        if self.size == 1:
            return mine
        parts = []
        for rank in range(self.size):
            size = self.share(rows, rank)[1]
            part = mine.contiguous() if rank == self.rank else mine.new_empty(size, *mine.shape[1:])
            dist.broadcast(part, src=rank)
            parts.append(part)
        return torch.cat(parts)


class _Shared(nn.Module):
    """See `Team.sharing`."""

    def __init__(self, model: Model, team: Team) -> None:
        super().__init__()
        self.model, self.team = model, team

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        first, count = self.team.share(len(x_t))
        # A process without a row evaluates one all the same, because only the model knows the form of its answer.
        rows = slice(first, first + count) if count else slice(0, 1)
        prediction, log_variance = checked_output(self.model(x_t[rows], t[rows]), x_t[rows])
        whole = self.team.assemble(prediction[:count], len(x_t))
        if log_variance is None:
            return whole
        return whole, self.team.assemble(log_variance[:count], len(x_t))
