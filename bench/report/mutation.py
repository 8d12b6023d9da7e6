"""The section "Would the tests notice?": seeded defects under the laws, random ones under the tests."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.record import Record
from bench.record.kinds import violations
from bench.record.statistics import proportion_interval
from bench.report.page.blocks import Block, Cell, Fold, Note, Paragraph, Section, Table

KIND = "mutation"

TITLE = "Would the tests notice?"

_METHOD = (
    "Two kinds of defect. **Seeded** ones are mistakes that people make, each an override of one function; the laws that name its cause "
    "must reject it. **Random** ones are edits of the source (an operator, a number, a term, an argument, a boundary) that nobody "
    "has looked at before; the tests run until the first failure. A mutation is *equivalent* where no test could find it: those are "
    "listed with their reasons and do not count."
)

Row = Mapping[str, Any]


def section(records: Sequence[Record]) -> Section | None:
    """What the latest campaign found; None where there was none."""
    mine = [record for record in records if record.kind == KIND]
    if not mine:
        return None
    results = mine[-1].results
    blocks: list[Block] = [Paragraph(_METHOD), *_seeded(results["seeded"])]
    blocks += _random(results, mine[-1].protocol) if results["sample"] else []
    return Section(
        TITLE,
        blocks,
        data=dict(results),
        headlines=_headlines(results),
        failed=bool(violations(mine[-1])),
        left_out=[(old.name, "a later campaign followed") for old in mine[:-1]],
    )


def _headlines(results: Row) -> list[str]:
    lines = []
    if results["sample"]:
        killed, counted = results["killed"], results["counted"]
        lines.append(
            f"The tests find {killed} of {counted} random defects in the mathematics "
            f"({_share(killed, counted)})."
        )
    seeded = results["seeded"]
    if seeded["count"]:
        lines.append(
            f"The laws reject {seeded['rejected']} of {seeded['count']} seeded defects, "
            f"{seeded['seen_elsewhere']} of them seen in other projects, each for its own cause."
        )
    return lines


def _share(killed: int, counted: int) -> str:
    interval = proportion_interval(killed, counted)
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.1%}"
    return f"{interval.estimate:.1%}, 95 % interval {interval.low:.1%} to {interval.high:.1%}"


def _seeded(seeded: Row) -> list[Block]:
    if not seeded["count"]:
        return []
    missed = {row["name"]: row["laws"] for row in seeded["missed"]}
    rows = [
        (
            row["name"].replace("-", " "),
            row["says"],
            row["origin"] or "our own",
            _rejected(row["laws"], missed.get(row["name"], [])),
        )
        for row in seeded["rows"]
    ]
    table = Table(("defect", "what is wrong", "seen", "rejected by"), rows)
    return [Fold(f"All {seeded['count']} seeded defects", [table])]


def _rejected(laws: Sequence[str], missed: Sequence[str]) -> Cell:
    text = ", ".join(f"{law} (missed)" if law in missed else law for law in laws)
    return Cell(text, "bad" if missed else "good")


def _random(results: Row, protocol: Row) -> list[Block]:
    header = ("module", "found", "counted", "equivalent")
    rows = [_counts(row) for row in results["by_module"]]
    total = (Cell("all", "strong"), str(results["killed"]), str(results["counted"]))
    caption = (
        f"A sample of {results['sample']} of {protocol['population']} mutations, seed "
        f"{protocol['command'].rpartition(' ')[2]}; {results['timeouts']} did not end and count as found."
    )
    equivalent = str(len(results["equivalent"]))
    blocks: list[Block] = [Table(header, [*rows, (*total, equivalent)], caption)]
    kinds = [_counts(row) for row in results["by_kind"]]
    blocks.append(Table(("kind of edit", *header[1:]), kinds))
    blocks += _listed("Survivors: defects that no test finds", results["survivors"])
    blocks += _listed("Equivalent mutations, with reasons", results["equivalent"])
    if not results["survivors"]:
        blocks.append(Note("No mutation of the sample survived unexplained.", "good"))
    return blocks


def _counts(row: Row) -> tuple[str | Cell, ...]:
    tone: Any = "plain" if row["killed"] == row["counted"] else "warn"
    return row["name"], Cell(str(row["killed"]), tone), str(row["counted"]), str(row["equivalent"])


def _listed(title: str, rows: Sequence[Row]) -> list[Block]:
    if not rows:
        return []
    cells = [
        (row["place"], f"`{row['before']}`", f"`{row['after']}`", row["reason"] or "not explained")
        for row in rows
    ]
    return [Fold(f"{title} ({len(rows)})", [Table(("place", "before", "after", "why"), cells)])]
