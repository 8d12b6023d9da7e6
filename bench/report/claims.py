"""Published claims and what became of them: the five most decisive for the first screen, all of them in a section.

A part puts its rows into `Section.claims`, with the keys of `bench.report.page.blocks.CLAIM_FIELDS`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.report.page import digits
from bench.report.page.blocks import CLAIM_FIELDS, Block, Cell, Paragraph, Section, Table, Tone

Claim = Mapping[str, Any]

_DECISIVE = 5
"""Claims on the first screen."""

_VERDICTS: Mapping[str, tuple[int, Tone]] = {
    "holds": (0, "good"),
    "fails": (0, "bad"),
    "within noise": (1, "muted"),
    "too few seeds": (2, "muted"),
    "not measured": (3, "muted"),
}
"""How a verdict begins → how settled the claim is (0: settled), and its tone."""

_INTRODUCTION = (
    "What papers and the article claim, what the exact law predicts where there is one, and what was measured here. "
    "A claim **holds** or **fails** only where its interval, adjusted for the number of claims, lies wholly on one side; "
    "**within noise** and **too few seeds** are not evidence of absence."
)


def ranked(claims: Iterable[Claim]) -> tuple[dict[str, Any], ...]:
    """The claims with every field, the most decisive first: settled ones, the more seeds and the narrower the earlier.

    Raises:
        ValueError: a claim lacks a field, or its verdict begins with none of the known words.
    """
    return tuple(sorted((_checked(claim) for claim in claims), key=_order))


def _checked(claim: Claim) -> dict[str, Any]:
    missing = [name for name in CLAIM_FIELDS if name not in claim]
    if missing:
        raise ValueError(f"claim {claim.get('id')!r} has no {', '.join(missing)}; give every field")
    _settled(claim)
    return {name: claim[name] for name in CLAIM_FIELDS}


def _settled(claim: Claim) -> tuple[int, Tone]:
    for start, rank in _VERDICTS.items():
        if str(claim["verdict"]).startswith(start):
            return rank
    raise ValueError(
        f"claim {claim['id']!r} has the verdict {claim['verdict']!r}; it begins with one of {', '.join(_VERDICTS)}"
    )


def _order(claim: Claim) -> tuple[Any, ...]:
    measured, low, high = (claim[name] for name in ("measured", "low", "high"))
    known = measured is not None and low is not None and high is not None and measured
    width = abs((high - low) / measured) if known else float("inf")
    return (_settled(claim)[0], -_count(claim["seeds"]), width, str(claim["id"]))


def _count(seeds: Any) -> int:
    return len(seeds) if isinstance(seeds, list | tuple) else int(seeds or 0)


def decisive(claims: Sequence[Claim]) -> list[Block]:
    """A table of the claims that lead the ranking, or nothing if there are no claims."""
    if not claims:
        return []
    more = len(claims) - _DECISIVE
    caption = "The most decisive claims" + (f"; {more} more below." if more > 0 else ".")
    return [_table(claims[:_DECISIVE], caption, brief=True)]


def section(claims: Sequence[Claim]) -> Section | None:
    """Every claim, after the first screen; None where no record holds any."""
    if not claims:
        return None
    verdicts = [next(v for v in _VERDICTS if str(c["verdict"]).startswith(v)) for c in claims]
    counts = {name: verdicts.count(name) for name in _VERDICTS if name in verdicts}
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Section(
        "Claims",
        [Paragraph(_INTRODUCTION), _table(claims, f"{len(claims)} claims: {told}.", brief=False)],
        data={"counts": counts},
    )


def _table(claims: Sequence[Claim], caption: str, *, brief: bool) -> Table:
    header = ["claim", "source", "predicted", "measured [95 %]", "verdict"]
    extra = [] if brief else ["seeds", "reason"]
    return Table([*header, *extra], [_row(claim, brief) for claim in claims], caption)


def _row(claim: Claim, brief: bool) -> list[str | Cell]:
    _, tone = _settled(claim)
    row: list[str | Cell] = [
        str(claim["says"]),
        str(claim["source"]),
        _value(claim["predicted"]),
        _measured(claim),
        Cell(str(claim["verdict"]), tone, str(claim["reason"] or "")),
    ]
    return row if brief else [*row, str(_count(claim["seeds"]) or "–"), str(claim["reason"] or "–")]


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return digits.number(value) if isinstance(value, int | float) else str(value)


def _measured(claim: Claim) -> str:
    if claim["measured"] is None:
        return "–"
    estimate, ends = digits.interval(claim["measured"], claim["low"], claim["high"])
    unit = str(claim["unit"] or "")
    after = "" if unit in ("", "1") else f" {unit}"
    return f"{estimate} [{ends}]{after}" if ends else f"{estimate}{after}"
