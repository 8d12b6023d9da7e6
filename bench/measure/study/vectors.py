r"""What is known about vectors whose distribution is known: the exact denoiser, and how far samples are from the truth.

**Denoising.** With the exact denoiser E[x_0 | x_t] of the data's oracle, on the same noisy data,

    excess(λ) = mean ‖x̂_0 − E[x_0 | x_t]‖²,       in v space  excess/(1−ᾱ),                                 (1)

which holds no noise of the data: a network that is exact has 0. Where network and exact denoiser are affine in x_t (linear networks, Gaussian
data) the mean is taken over the 2D points μ_t ± √D C_t^½ e_i, C_t the covariance of x_t, over which every quadratic function has its exact
expectation: (1) is then free of sampling.

**Sampling.** Let P project onto the span of the data (the directions in which the training data vary at all). A sample x has the *energy
off the data's plane* ‖x − Px‖², 0 for real data. In the span, the energy distance (Székely & Rizzo 2013) between samples X and held-out data Y,

    ℰ = 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ ≥ 0,    0 only for equal distributions,                           (2)

by the unbiased estimates of its terms, so that two sets of real data scatter around 0; and the accuracy with which a nearest-neighbour
classifier tells X from Y (Lopez-Paz & Oquab 2017): ½ where they cannot be told apart.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import DataSet
from bench.measure.study.yardsticks import Probe
from ddpm_ref.network import LowRank
from ddpm_ref.schedule import Schedule

_NO_VARIANCE = 1e-9
"""Below this share of the largest variance a direction belongs to no data."""
_LARGE = 1e6
"""Samples farther out than this are taken as this far: a distance of 10³⁰⁰ says no more."""
_FEW_DIMENSIONS = 3


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known about the data.

    Attributes:
        data: the data set; its oracle is the truth.
        centre: mean of the training data `[D]`, float64.
        span: orthonormal directions in which the data vary, `[D, d]`, float64.
    """

    data: DataSet
    centre: Tensor
    span: Tensor

    def denoising(self, model: nn.Module, output: str, probe: Probe) -> dict[str, Any]:
        """Eq. (1), by log-SNR and averaged over it; nothing where the data have no oracle."""
        if self.data.oracle is None:
            return {}
        if any(isinstance(part, LowRank) for part in model.modules()):
            probe = self._sigma_points(probe)
        excess = probe.excess(model, output, self._exact(probe.schedule))
        noise = [float(probe.schedule.one_minus_alpha_bar[t]) for t in probe.steps]
        in_v = [e / n for e, n in zip(excess, noise, strict=True)]
        return {
            "excess_by_bin": excess,
            "excess": sum(excess) / len(excess),
            "excess_v": sum(in_v) / len(in_v),
        }

    def _exact(self, schedule: Schedule) -> Any:
        return lambda x_t, t: self.data.oracle.denoise(x_t, t, schedule)

    def _sigma_points(self, probe: Probe) -> Probe:
        oracle, schedule = self.data.oracle, probe.schedule
        mean, size = oracle.mean, oracle.size
        levels = []
        for t in probe.steps:
            kept, noise = float(schedule.alpha_bar[t]), float(schedule.one_minus_alpha_bar[t])
            steps = (size * (kept * oracle.spectrum + noise)).sqrt()[:, None] * oracle.basis.T
            levels.append(kept**0.5 * mean + torch.cat([steps, -steps]))
        x_t = torch.stack(levels)
        return replace(probe, x_t=x_t.to(probe.x_t.dtype), eps=torch.zeros_like(x_t))

    def sampling(self, drawn: Tensor) -> dict[str, Any]:
        """Energy off the plane, and where the span has few dimensions eq. (2) and the classifier's accuracy."""
        centred = drawn.double().clamp(-_LARGE, _LARGE) - self.centre
        inside = centred @ self.span
        off = (centred.square().sum(1) - inside.square().sum(1)).clamp(min=0)
        found: dict[str, Any] = {"off_plane": float(off.mean())}
        if self.span.shape[1] <= _FEW_DIMENSIONS:
            real = self._inside(self.data.heldout[: len(drawn)])
            found["energy_distance"] = energy_distance(inside, real)
            found["told_apart"] = told_apart(inside, real)
        return found

    def floor(self, samples: int) -> dict[str, Any]:
        """The same figures of disjoint sets of training data, as many in a set as samples are drawn."""
        if not samples:
            return {}
        sets = [part for part in self.data.train.split(samples) if len(part) == samples][:8]
        figures = [self.sampling(part) for part in sets]
        return {name: [entry[name] for entry in figures] for name in (figures or [{}])[0]}

    def _inside(self, rows: Tensor) -> Tensor:
        return (rows.double() - self.centre) @ self.span


def truth_of(data: DataSet) -> Truth:
    """Centre and span of the training data, with the oracle that they came with."""
    rows = data.train.flatten(1).double()
    centre = rows.mean(0)
    values, directions = torch.linalg.eigh(torch.cov(rows.T).reshape(len(centre), -1))
    kept = values > _NO_VARIANCE * values.max()
    return Truth(data, centre, directions[:, kept])


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Eq. (2) between `[n, d]` and `[m, d]`, each of at least 2, unbiased; it may come out a little below 0."""
    n, m = len(a), len(b)
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return float(2 * torch.cdist(a, b).mean() - within)


def told_apart(a: Tensor, b: Tensor) -> float:
    """Share of points of `[n, d]` and `[m, d]` whose nearest other point is of their own set; ½ if they are one distribution."""
    both = torch.cat([a, b])
    own = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])
    distances = torch.cdist(both, both)
    distances.fill_diagonal_(float("inf"))
    return float((own[distances.argmin(1)] == own).double().mean())
