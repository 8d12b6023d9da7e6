"""The table claim → data, arms, runs, and its cost: what `docs/claims.md` holds."""

from bench.measure.study.designs import STUDIES, Study
from bench.record.claim import Claim
from bench.record.claims import CLAIMS
from bench.record.statistics import detectable

_SECONDS_OF_A_STEP = {"low-rank": 3.5e-3, "mlp": 6e-3, "unet": 2.2e-2}
"""About what an optimizer step of these studies takes on one core, for the estimate of the cost; evaluation included."""


def table() -> str:
    """Markdown: every claim with its data, arms, runs and core-minutes."""
    header = [
        "| claim | says | source | study | data | arms | seeds | runs | core-minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*header, *map(_row, CLAIMS.values()), "", _sum()])


def minutes(row: Study) -> float:
    """Core-minutes of a study, estimated: runs and tuning runs times steps times what a step takes."""
    design = row.design
    tuning = sum(len(design.rates_of(arm)) for arm in design.arms if len(design.rates_of(arm)) > 1)
    steps = len(design.arms) * len(design.seeds) * design.steps + tuning * design.tuning_steps
    return steps * _SECONDS_OF_A_STEP.get(design.network, 2.2e-2) / 60


def _row(claim: Claim) -> str:
    if not claim.cells:
        return f"| `{claim.id}` | {claim.says} | {claim.source} | needs {claim.needs} | – | – | – | – | – |"
    rows = [STUDIES[name] for name in claim.studies if name in STUDIES]
    arms = sorted({term.arm for cell in claim.cells for term in cell.terms})
    seeds = sorted({len(row.design.seeds) for row in rows})
    runs = sum(len(row.design.arms) * len(row.design.seeds) for row in rows)
    names = ", ".join(f"`{row.name}`" for row in rows[:3]) + (" …" if len(rows) > 3 else "")
    data = ", ".join(dict.fromkeys(row.data for row in rows))
    return (
        f"| `{claim.id}` | {claim.says} | {claim.source} | {names} | {data} | {', '.join(f'`{a}`' for a in arms)} | "
        f"{', '.join(map(str, seeds))} | {runs} | {sum(map(minutes, rows)):.0f} |"
    )


def _sum() -> str:
    names = dict.fromkeys(name for row in CLAIMS.values() for name in row.studies)
    rows = [STUDIES[name] for name in names if name in STUDIES]
    total = sum(map(minutes, rows))
    family = sum(row.kind == "difference" and bool(row.cells) for row in CLAIMS.values())
    power = ", ".join(f"{detectable(n, level=0.05 / family):.1f} with {n} seeds" for n in (3, 5))
    return (
        f"A study serves every claim that needs it: {len(rows)} studies, together about {total:.0f} core-minutes. The family has "
        f"{family} differences; at Holm's first step the least effect found with probability 0.8, in paired standard deviations, is {power}."
    )
