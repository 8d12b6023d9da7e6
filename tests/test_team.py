"""Shares cover all rows once, and what several processes compute of them is what one computes."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import distributed

from ddpm_ref.elbo import elbo
from ddpm_ref.estimator import validation_loss
from ddpm_ref.network import UNet, initialize
from ddpm_ref.noise import NoiseStream
from ddpm_ref.sampler import sample
from ddpm_ref.schedule import linear_schedule
from ddpm_ref.team import Team


@pytest.mark.parametrize("rows", [0, 1, 5, 64, 97])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_neighbours_without_gap_overlap_or_padding(rows, size):
    shares = [Team(rank, size).share(rows) for rank in range(size)]
    covered = [row for first, count in shares for row in range(first, first + count)]
    assert covered == list(range(rows))
    counts = [count for _, count in shares]
    assert max(counts) - min(counts) <= 1
    assert Team(0, size).share(rows, size - 1) == shares[-1]


def test_a_share_of_another_size_is_refused():
    with pytest.raises(ValueError, match="rank 1 has 3 of 5 rows, its share is 2"):
        Team(1, 3).assemble(torch.zeros(3), 5)


WORKER = """
import sys, torch
from torch import distributed as dist
from tests.test_team import computed
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
torch.save(computed(), sys.argv[2])
dist.destroy_process_group()
"""


def computed() -> dict[str, torch.Tensor]:
    """What is asked of a model: shares of three and four rows, and of one row for two."""
    schedule = linear_schedule(5)
    network = UNet(1, base=4, multipliers=(1,), attention=(), steps=5).double()
    initialize(network, NoiseStream(3))
    eps = Team.present().sharing(network)

    def with_variance(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return network(x_t, t), torch.full_like(x_t, -3.0)

    def with_none(x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, None]:
        return network(x_t, t), None

    images = NoiseStream(4).normal((7, 1, 4, 4), step=0).double().clamp(-1, 1)
    gaussian: Any = {"decoder": "gaussian", "batch_size": 7}
    loss = validation_loss(
        eps, images, schedule, parameterization="eps", weighting="simple", evaluations=99
    )
    learned = elbo(Team.present().sharing(with_variance), images, schedule, **gaussian)
    return {
        "sample": sample(eps, (7, 1, 4, 4), schedule, parameterization="eps", seed=2),
        "one": sample(eps, (1, 1, 4, 4), schedule, parameterization="eps", seed=2),
        "bound": elbo(eps, images, schedule, **gaussian).total,
        "learned": learned.total,
        "none": elbo(Team.present().sharing(with_none), images, schedule, **gaussian).total,
        "loss": torch.tensor(loss.value, dtype=torch.float64),
    }


def test_two_processes_have_the_rows_of_one(tmp_path):
    alone = computed()
    meeting = f"file://{tmp_path}/meeting"
    other = subprocess.Popen([sys.executable, "-c", WORKER, meeting, str(tmp_path / "other.pt")])
    distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=2)
    try:
        together = computed()
        assert other.wait(timeout=120) == 0
    finally:
        other.kill()
        distributed.destroy_process_group()
    theirs = torch.load(tmp_path / "other.pt")
    for name, values in alone.items():
        torch.testing.assert_close(together[name], values, rtol=1e-12, atol=1e-12)
        assert torch.equal(theirs[name], together[name])


def test_a_shared_model_is_checked_as_any_other() -> None:
    """The second of two processes: an answer of another size is named before it is cut."""
    shared = Team(1, 2).sharing(lambda x_t, t: torch.zeros(9, 2))
    with pytest.raises(ValueError, match=r"shape \[9, 2\]"):
        shared(torch.zeros(4, 2), torch.ones(4, dtype=torch.int64))
