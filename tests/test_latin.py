"""Latin sets: each draw standard normal by itself, each set even in every coordinate."""

import itertools
import math

import pytest
import scipy.stats
import torch

from ddpm_ref.estimator.latin import LARGEST, latin_normal, set_sizes
from ddpm_ref.noise import NoiseStream, Use

USE = {"use": Use.NOISE, "step": 7}


def sets(count: int, size: int, dims: tuple[int, ...] = (5,), seed: int = 3) -> torch.Tensor:
    """`[count, size, *dims]`."""
    sizes = torch.full((count,), size)
    return latin_normal(NoiseStream(seed), sizes, dims, **USE).view(count, size, *dims)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32])
def test_each_draw_is_standard_normal_and_its_coordinates_independent(size) -> None:
    one = sets(3001, size)[:, size // 2]  # one place of every set: 3001 independent draws
    assert scipy.stats.kstest(one.flatten().numpy(), "norm").pvalue > 1e-4
    # 10 correlations of 3001 pairs each, of values and of squares: standard error 0.018.
    for rows in (one, one.square()):
        apart = torch.corrcoef(rows.T) - torch.eye(5, dtype=torch.float64)
        assert apart.abs().max().item() < 4.5 / math.sqrt(3001)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_a_set_has_one_magnitude_in_every_stratum_and_alternating_signs(size) -> None:
    noise = sets(211, size)
    magnitude, order = noise.abs().sort(dim=1)
    stratum = (torch.special.erf(magnitude / math.sqrt(2)) * size).floor()
    expected = torch.arange(size, dtype=torch.float64).view(1, size, 1).expand_as(stratum)
    assert torch.equal(stratum, expected)
    sign = noise.sign().gather(1, order)
    assert torch.equal(sign[:, 1:], -sign[:, :-1])


def test_sums_over_coordinates_hardly_vary() -> None:
    # 8 times the variance of the mean of e² over 8 strata of equal mass is the mean variance within them; without strata it is 2.
    edges = scipy.stats.halfnorm.ppf([k / 8 for k in range(9)])
    within = 0.0
    for low, high in itertools.pairwise(edges):
        second, fourth = (
            scipy.stats.halfnorm.expect(lambda x, p=p: x**p, lb=low, ub=high, conditional=True)
            for p in (2, 4)
        )
        within += (fourth - second**2) / 8
    means = sets(4001, 8, (1,)).square().mean(dim=1)[:, 0]
    assert within < 0.5
    # The variance of a heavy-tailed sample of 4001: relative standard error about 4 %.
    assert means.var().item() * 8 == pytest.approx(within, rel=0.2)
    assert sets(4001, 8, (1,)).mean(dim=1).var().item() * 8 < 0.3


def test_a_set_depends_on_its_number_and_size_alone() -> None:
    sizes, dims = torch.tensor([3, 7, 1, 7]), (2, 3)
    together = latin_normal(NoiseStream(1), sizes, dims, **USE)
    last = latin_normal(NoiseStream(1), sizes[3:], dims, first_set=3, **USE)
    middle = latin_normal(NoiseStream(1), sizes[2:3], dims, first_set=2, **USE)
    assert together.shape == (18, 2, 3)
    assert torch.equal(together[11:], last)
    assert torch.equal(together[10:11], middle)


def test_set_sizes_cover_the_counts_evenly() -> None:
    counts = torch.tensor([1, 32, 33, 7, 100])
    sizes = set_sizes(counts)
    assert sizes.tolist() == [1, 32, 17, 16, 7, 25, 25, 25, 25]
    assert int(sizes.max()) <= LARGEST
    assert sizes.sum() == counts.sum()
