"""Section on the run itself: which parts were done, and the reason of each that was not."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.record import Record
from bench.record.kinds import violations
from bench.report.page.blocks import Cell, Section, Table, Tone

_TONES: Mapping[str, Tone] = {"done": "good", "failed": "bad", "broke": "bad"}


def section(records: Sequence[Record]) -> Section | None:
    """The newest record of a whole run, or None."""
    runs = [record for record in records if record.kind == "run"]
    if not runs:
        return None
    parts = runs[-1].results["parts"]
    trouble = [part for part in parts if part["status"] != "done"]
    return Section(
        title="Parts of this run",
        blocks=[Table(["part", "ended", "took", "reason"], [_row(part) for part in parts])],
        data={"parts": parts},
        headlines=[f"**{part['part']}** {part['status']}: {part['reason']}" for part in trouble],
        failed=bool(violations(runs[-1])),
        left_out=[(run.name, "a later run followed") for run in runs[:-1]],
    )


def _row(part: Mapping[str, Any]) -> list[str | Cell]:
    status = str(part["status"])
    took = f"{part['seconds']:.0f} s"
    return [part["part"], Cell(status, _TONES.get(status, "plain")), took, part["reason"] or "–"]
