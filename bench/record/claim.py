r"""A claim is a row: what somebody says, which study decides it, by which measure, and which contrast has to come out how.

A *cell* is one contrast within one study: for every seed

    y = Σ c f(value of a measure for an arm),        f = ln where the measure is compared by ratio, else 1,                    (1)

written so that y > 0 is what the claim says. A claim of a **difference** holds where every one of its cells is above 0, beyond noise. A claim of
**equality** names its margin m beforehand and holds where every cell lies within ±m (±ln m for a ratio). How that is decided is
in `bench.record.settling`.

The primary measure stands in the row before anything is run. A row without cells cannot be decided on a CPU and says what would.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Term:
    """c times a measure of an arm, in eq. (1)."""

    factor: float
    arm: str
    measure: str


@dataclass(frozen=True)
class Cell:
    """One contrast (1) in one study.

    Attributes:
        study: its name in `bench.measure.study.designs`.
        terms: the summands.
        level: index of the log-SNR bin of measures that have a value for each.
    """

    study: str
    terms: tuple[Term, ...]
    level: int | None = None

    @property
    def label(self) -> str:
        """The cell in a table: study, and the bin where there is one."""
        return self.study if self.level is None else f"{self.study}, level {self.level + 1}"


@dataclass(frozen=True)
class Claim:
    """One row.

    Attributes:
        id: short and unique; `ddpm-bench run --claims ID` runs what it needs.
        says: the claim, as a sentence.
        source: who says it.
        kind: `difference`, `equality`, or `exact` (a closed form, without seeds).
        cells: every one of them must come out; () where a CPU cannot decide.
        margin: of an equality, in the unit of (1): a factor for ratios, a difference else.
        predicted: what the closed form says, in words; numbers are taken from the record where it holds them.
        needs: what a claim without cells needs.
        command: what would decide it.
        prices: of an exact claim, two reverse variances of a `bound` record; it holds where the first costs no more bits/dim.
    """

    id: str
    says: str
    source: str
    kind: Literal["difference", "equality", "exact"] = "difference"
    cells: tuple[Cell, ...] = ()
    margin: float | None = None
    predicted: str = ""
    needs: str = ""
    command: str = ""
    prices: tuple[str, str] = ("", "")

    @property
    def studies(self) -> tuple[str, ...]:
        """Names of the studies that decide it."""
        return tuple(dict.fromkeys(cell.study for cell in self.cells))


def less(study: str, measure: str, smaller: str, *larger: str) -> tuple[Cell, ...]:
    """`smaller` has the lesser value than each of `larger`."""
    return tuple(
        Cell(study, (Term(1.0, arm, measure), Term(-1.0, smaller, measure))) for arm in larger
    )


def equal(study: str, measure: str, first: str, *others: str) -> tuple[Cell, ...]:
    """`first` has the value of each of the others."""
    return less(study, measure, first, *others)


def over(studies: Sequence[str], measure: str, smaller: str, *larger: str) -> tuple[Cell, ...]:
    """`less`, or `equal`, in each of several studies."""
    return tuple(cell for study in studies for cell in less(study, measure, smaller, *larger))


def bound_of(row: Claim, *, ratio: bool) -> float:
    """The margin of an equality in the unit of eq. (1)."""
    if row.margin is None:
        raise ValueError(f"claim {row.id!r} is an equality without a margin: name one beforehand")
    return math.log(row.margin) if ratio else row.margin
