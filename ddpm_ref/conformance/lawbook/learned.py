r"""Laws on variances that a network says: as a logarithm, or as a place between the two extreme choices.

β̃_t is the right variance for data at a point and β_t for data that are N(0, I) (Ho et al. 2020, section 3.2). A network that says
v ∈ [0, 1] moves between them on a logarithmic scale (Nichol & Dhariwal 2021, eq. 15),

    ln σ_t² = v ln β_t + (1−v) ln β̃_t,        t ≥ 2.                                                   (1)

At t = 1 there is no ln β̃_1 = −∞ to start from. Their code puts ln β̃_2 there; β_1 itself, which both fixed choices take for the decoder,
is the other end of what a chain has to offer: β̃_2 ≤ β_1, as the inverse of a sum of precisions of which one is 1/(1−ᾱ_1) = 1/β_1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement import cases as agreement
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import (
    AGREEMENT_REASON,
    DENSITY,
    Case,
    Law,
    settings_with_truth,
)
from ddpm_ref.conformance.lawbook.truth import MP, Row
from ddpm_ref.conformance.setting import Setting

_OUTSIDE = "nats from [ln β̃_2, ln β_1] to the lower end of the learned range"


def _range_at_first(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        first, second = known.rows[1], known.rows[min(2, known.T)]
        yield from _first_cases(setting, *_ends(first, second))


def _ends(first: Row, second: Row) -> tuple[float, float]:
    """(ln β̃_2, ln β_1); both ln β_1 for a chain of one step."""
    smallest = second.posterior_variance if second is not first else first.beta
    return float(MP.log(smallest)), float(MP.log(first.beta))


def _first_cases(setting: Setting, low: float, high: float) -> Iterator[Case]:
    """The lower end in nats from [low, high], and the upper end."""
    t, lower = torch.tensor([1]), torch.zeros(1, 1, dtype=torch.float64)

    def outside(candidate: Implementation) -> Tensor:
        value = candidate.learned_variance(setting, "range", lower.clone(), t)[1].double()
        return value - value.clamp(low, high)

    arguments = {"setting": setting, "meaning": "range", "said": lower, "t": t}
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    yield Case("learned_variance", arguments, nothing, run=outside, label=_OUTSIDE)
    yield Case(
        "learned_variance",
        {**arguments, "said": torch.ones_like(lower)},
        torch.full_like(lower, high),
        select=lambda pair: pair[1],
        label="learned_variance(…)[1]",
    )


LAWS = (
    Law(
        "I20-range",
        "learned range",
        "A network's v is the variance ln σ_t² = v ln β_t + (1−v) ln β̃_t for t ≥ 2, in sampling and in the bound alike.",
        "β̃_t is right for data at a point, β_t for data that are N(0, I); v moves between their logarithms, because they differ "
        "by a factor that is large at the clean end and 1 at the other.",
        "Nichol & Dhariwal 2021, eq. 15.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.both("learned_variance", only=lambda options: options["meaning"] == "range"),
    ),
    Law(
        "I20-range-first",
        "learned range at t = 1",
        "At t = 1 the range ends at ln β_1, and begins at ln β̃_2 or above: a variance of this chain, not the floor of a guard "
        "against ln 0.",
        "β̃_1 = 0 has no logarithm, so that step takes the next step's lower end, or β_1 itself. The range belongs to the decoder there: "
        "from ln 1e-20 upwards, v = ½ is a deviation of 1e-6 at β_1 = 1e-4, where a grey level is 0.008 wide. A sampler, which adds no "
        "noise at t = 1, never shows it; a likelihood does.",
        "Nichol & Dhariwal 2021, eq. 15 and their code, posterior_log_variance_clipped. Seen: the 1e-20 floor becomes the learned "
        "range's lower end.",
        {torch.float64: 1e-11},
        "Absolute, nats; 1−ᾱ_1 by subtraction in float64 determines ln β_1 to 1e-16/β_1 = 1e-12, and β̃_2 to a few of these.",
        _range_at_first,
    ),
    Law(
        "I20-learned",
        "learned log-variance",
        "Where a network says ln σ² itself, the variance that sampling uses is its exponential.",
        "A network's output is any real number: as a logarithm each is a variance, as a variance the negative ones are none.",
        "Nichol & Dhariwal 2021, section 3.1 and their code, ModelVarType.LEARNED. Seen: network output used as a variance where "
        "others take a log-variance.",
        DENSITY,
        AGREEMENT_REASON,
        agreement.both("learned_variance", only=lambda options: options["meaning"] == "log"),
    ),
)
