"""Pages of a comparison: two sides, or a column per torch release. The same blocks as every report has."""

from collections.abc import Sequence

from bench.record.comparison import Change, Comparison
from bench.record.outcomes import Fact
from bench.record.record import Record
from bench.record.releases import Measurement, Releases
from bench.report.page import digits
from bench.report.page.blocks import Block, Cell, Fold, Front, Note, Paragraph, Section, Table, Tone
from bench.report.page.document import Report

_TONES: dict[str, Tone] = {
    "better": "good",
    "worse": "bad",
    "changed": "warn",
    "within noise": "muted",
    "not tested": "muted",
}
_METHOD = (
    "A change counts only if its p-value, adjusted for the number of series (Holm), is below 5 % and its interval, adjusted "
    "alike, excludes “no change”; for times it must also exceed what runs on this machine differ by themselves. "
    "**visible from**: the smallest change that this comparison could have seen."
)

_Sides = Sequence[tuple[str, Comparison]]
"""Name of a measurement and what changed in it."""


def page(
    sides: _Sides, records: Sequence[Record], left_out: Sequence[tuple[str, str]] = ()
) -> Report:
    """The page on two sides: what got worse or better first, everything within noise folded."""
    sections = [_section(name, comparison) for name, comparison in sides]
    if left_out:
        rows = [[f"`{name}`", reason] for name, reason in left_out]
        sections.append(Section("Not compared", [Table(["what", "why"], rows)]))
    return Report(
        title="What changed?",
        subtitle=" · ".join(dict.fromkeys(text for _, c in sides for text in c.conditions))
        or "Equal conditions.",
        front=Front(_answer([comparison for _, comparison in sides]), _decisive(sides)),
        verdict=(),
        sections=tuple(sections),
        claims=(),
        records=tuple(records),
        left_out=tuple(left_out),
    )


def _answer(comparisons: Sequence[Comparison]) -> list[str]:
    verdicts = [verdict for c in comparisons for verdict in c.verdicts]
    counts = {name: verdicts.count(name) for name in _TONES if name in verdicts}
    if not counts:
        return ["Nothing changed."]
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    verdict = (
        "Something is worse beyond noise"
        if counts.get("worse")
        else "Nothing is worse beyond noise"
    )
    return [f"**{verdict}**: {told} (95 % level, adjusted for the number of tests)."]


def _decisive(sides: _Sides) -> list[Block]:
    """Everything that is better, worse or changed, over all measurements."""
    changes = [c for _, side in sides for c in side.changes if _tells(c.verdict)]
    told: list[Fact] = [fact for _, side in sides for fact in side.facts]
    return [*_facts(told), *_changes(changes, "Beyond noise")]


def _tells(verdict: str) -> bool:
    return verdict in ("better", "worse", "changed")


def _section(name: str, comparison: Comparison) -> Section:
    moved = [change for change in comparison.changes if _tells(change.verdict)]
    quiet = [change for change in comparison.changes if not _tells(change.verdict)]
    blocks: list[Block] = [Paragraph(_METHOD)] if comparison.changes else []
    blocks += [Paragraph(f"Differs: {text}") for text in comparison.conditions]
    blocks += [*_facts(comparison.facts), *_changes(moved, "Beyond noise")]
    blocks += [Fold(f"{len(quiet)} series within noise", _changes(quiet, ""))] if quiet else []
    if comparison.missing:
        rows = [[text] for text in comparison.missing]
        blocks.append(
            Fold(f"Not compared ({len(rows)})", [Table(["what only one side has"], rows)])
        )
    if not comparison.changes and not comparison.facts:
        blocks.append(Note("Nothing changed.", "good"))
    data = {
        "changes": [change.as_json() for change in comparison.changes],
        "facts": [fact.as_json() for fact in comparison.facts],
    }
    return Section(name, blocks, data=data, failed=comparison.worse)


def _facts(facts: Sequence[Fact]) -> list[Block]:
    if not facts:
        return []
    rows: list[list[str | Cell]] = [
        [f.name, f.old, f.new, Cell(f.verdict, _TONES[f.verdict]), f.remark or "–"] for f in facts
    ]
    header = ["law, part or exact number", "old", "new", "verdict", "remark"]
    return [Table(header, rows, "What does not scatter.")]


def _changes(changes: Sequence[Change], caption: str) -> list[Block]:
    if not changes:
        return []
    header = [
        "series",
        "unit",
        "old",
        "new",
        "change [95 %, adjusted]",
        "p",
        "verdict",
        "visible from",
    ]
    return [Table(header, [_row(change) for change in changes], caption)]


def _row(change: Change) -> list[str | Cell]:
    return [
        change.name,
        change.unit,
        digits.number(change.old),
        digits.number(change.new),
        effect(change),
        "–" if change.p is None else f"{change.p:.2g}",
        Cell(change.verdict, _TONES[change.verdict], change.remark),
        smallest(change),
    ]


def effect(change: Change) -> str:
    """`×1.20 [1.15, 1.26]`, or a difference with its sign."""
    sign = "×" if change.relation == "ratio" else "+" * (change.effect.estimate > 0)
    return digits.with_interval(change.effect, sign)


def smallest(change: Change) -> str:
    """The smallest visible change: `×1.08`, `±0.02`."""
    if change.smallest is None:
        return "–"
    return f"{'×' if change.relation == 'ratio' else '±'}{digits.number(change.smallest)}"


# ---- a column per release --------------------------------------------------------------------


def releases_page(found: Releases, records: Sequence[Record]) -> Report:
    """The page on torch releases: a column each; laws, times, bits."""
    sections = [_measured(measurement, found.names) for measurement in found.measurements]
    if found.alone:
        rows = [[text] for text in found.alone]
        sections.append(Section("Not compared", [Table(["record"], rows)]))
    return Report(
        title="What changes with torch?",
        subtitle=" · ".join(found.names),
        front=Front(_releases_answer(found), [_overview(found)]),
        verdict=(),
        sections=tuple(sections),
        claims=(),
        records=tuple(records),
    )


def _releases_answer(found: Releases) -> list[str]:
    compared = [c for m in found.measurements for c in m.comparisons.values()]
    first = _answer(compared)
    base = found.names[0]
    return [
        f"Every release is compared with {base}, in {len(found.measurements)} measurements.",
        *first,
    ]


def _overview(found: Releases) -> Table:
    """A row per measurement: how many changes of each kind, how many series are equal to the bit."""
    rows: list[list[str | Cell]] = []
    for m in found.measurements:
        cells = [_overview_cell(m, name) for name in found.names]
        rows.append([_title(m), *cells])
    return Table(["measurement", *found.names], rows, "Against the oldest release that has it.")


def _overview_cell(m: Measurement, name: str) -> Cell:
    if name == m.base:
        count = len(m.records[name])
        return Cell(f"base, {count} record{'s' * (count != 1)}", "muted")
    if name not in m.comparisons:
        return Cell(
            "not measured" if name not in m.records else "not comparable",
            "muted",
            m.refused.get(name, ""),
        )
    comparison = m.comparisons[name]
    counts = {v: comparison.verdicts.count(v) for v in ("worse", "better", "changed")}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    equal, of = comparison.bits_equal
    bits = f"; {equal} of {of} series equal to the bit" if m.kind == "study" and of else ""
    tone: Tone = "bad" if comparison.worse else "plain"
    return Cell((told or "no change beyond noise") + bits, tone)


def _title(m: Measurement) -> str:
    name = (m.records[m.base][0].data or {}).get("name")
    return f"{m.kind}, {name}" if name else m.kind


def _measured(m: Measurement, names: Sequence[str]) -> Section:
    """Every series and every changed law of one measurement, a column a release."""
    later = [name for name in names if name in m.comparisons]
    blocks: list[Block] = [*_law_columns(m, later), *_time_columns(m, later)]
    blocks += [Note(f"{name}: {reason}", "warn") for name, reason in m.refused.items()]
    missing = dict.fromkeys(text for c in m.comparisons.values() for text in c.missing)
    if missing:
        rows = [[text] for text in missing]
        blocks.append(
            Fold(f"Not compared ({len(rows)})", [Table(["what only one side has"], rows)])
        )
    data = {
        name: {
            "changes": [change.as_json() for change in m.comparisons[name].changes],
            "facts": [fact.as_json() for fact in m.comparisons[name].facts],
            "bits_equal": list(m.comparisons[name].bits_equal),
        }
        for name in later
    }
    return Section(
        _title(m), blocks, data=data, failed=any(c.worse for c in m.comparisons.values())
    )


def _law_columns(m: Measurement, later: Sequence[str]) -> list[Block]:
    told = {name: {fact.name: fact for fact in m.comparisons[name].facts} for name in later}
    changed = list(dict.fromkeys(name for facts in told.values() for name in facts))
    if not changed:
        return [Note("No law, part or exact number changed.", "good")] if m.kind == "verify" else []
    rows: list[list[str | Cell]] = []
    for law in changed:
        facts = [told[name].get(law) for name in later]
        before = next(fact.old for fact in facts if fact is not None)
        cells = [
            Cell("as before", "muted") if f is None else Cell(f.new, _TONES[f.verdict], f.remark)
            for f in facts
        ]
        rows.append([law, before, *cells])
    return [Table(["law, part or number", m.base, *later], rows, "What changed without scatter.")]


def _time_columns(m: Measurement, later: Sequence[str]) -> list[Block]:
    told = {name: {c.name: c for c in m.comparisons[name].changes} for name in later}
    series = list(dict.fromkeys(name for changes in told.values() for name in changes))
    if not series:
        return []
    rows: list[list[str | Cell]] = []
    for one in series:
        changes = [told[name].get(one) for name in later]
        first = next(change for change in changes if change is not None)
        base = f"{digits.number(first.old)} {first.unit}"
        cells = [
            Cell("–", "muted") if c is None else Cell(effect(c), _TONES[c.verdict], c.remark)
            for c in changes
        ]
        rows.append([one, base, *cells])
    caption = "Green or red: beyond noise; grey: within it. Intervals are adjusted for the number of series."
    return [Table(["series", m.base, *later], rows, caption)]
