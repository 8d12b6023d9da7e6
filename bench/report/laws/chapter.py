"""The section "Verification": which laws hold on what, what fails and of which kind, and the executable weight table.

Of several records the latest outcome of each implementation counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.record import Record
from bench.report.laws.heat import heat_figure
from bench.report.laws.outcomes import (
    DTYPES,
    FAILURES,
    Row,
    by_law,
    complete,
    counts,
    failed,
    kind,
    root,
    worst,
)
from bench.report.page.blocks import Block, Cell, Code, Fold, Note, Paragraph, Section, Table, Tone

KIND = "verify"
OURS = "ddpm_ref"
_METHOD = (
    "A **law** is a statement that every implementation of the objective must satisfy, compared with a closed form in 50 digits "
    "that no code under test has a part in. Each runs in float64, float32, bfloat16 and float16 where that means something. "
    "A failure is a **bug** where it fails in float64, **precision** where it fails only below or by no more than plain rounding "
    "explains (**severe** where no digit is left), and a **convention** where it holds under another meaning that the adapter declares. "
    "Libraries whose tables are float32 meet float64 inputs with tables that their own code has computed in float64, so that a formula "
    "is judged and not its rounding. **Not offered** (–) is a result of its own: most libraries have no bound at all."
)
_MARKS: dict[str, tuple[str, Tone]] = {
    "pass": ("holds", "good"),
    "not-offered": ("–", "muted"),
    "adapter": ("adapter", "bad"),
    "bug": ("bug", "bad"),
    "severe": ("severe", "bad"),
    "precision": ("precision", "warn"),
    "convention": ("convention", "warn"),
}


def section(records: Sequence[Record]) -> Section | None:
    """What the laws found; None where no record has it."""
    described, rows, statements = _latest(records)
    if not described:
        return None
    main = [one for one in described if ":" not in one["name"]]
    options = [one for one in described if one not in main]
    blocks: list[Block] = [
        Paragraph(_METHOD),
        _summary(described, rows),
        *filter(None, [heat_figure(described, rows)]),
        *_matrix(main, rows, statements),
        *_failures(rows, statements, described),
        *_options_note(options),
        *_weight_blocks(records),
    ]
    ours = [row for row in rows if row["implementation"] == OURS and failed(row)]
    return Section(
        title="Verification",
        blocks=blocks,
        data={
            "implementations": described,
            "laws": [_brief(row) for row in rows if row["status"] != "not-offered"],
        },
        headlines=_headlines(described, rows),
        failed=bool(ours),
    )


def _latest(
    records: Iterable[Record],
) -> tuple[list[Row], list[Row], dict[str, Row]]:
    """Implementations, their rows, and the laws' words, each implementation from the last record that has it."""
    described: dict[str, Row] = {}
    rows: dict[str, list[Row]] = {}
    statements: dict[str, Row] = {}
    for record in sorted(records, key=lambda r: (r.created, r.sha256)):
        if record.kind != KIND:
            continue
        statements.update({law["law"]: law for law in record.results["statements"]})
        for one in record.results["implementations"]:
            described[one["name"]] = one
            rows[one["name"]] = complete(one, record.results["laws"])
    names = sorted(described, key=lambda name: (described[name]["source"] != OURS, name.lower()))
    return [described[n] for n in names], [row for n in names for row in rows[n]], statements


def _summary(described: Sequence[Row], rows: Sequence[Row]) -> Table:
    body: list[list[str | Cell]] = []
    for one in described:
        found = counts(by_law(rows, one["name"]))
        bugs = Cell(str(found["bug"]), "bad" if found["bug"] else "plain")
        body.append(
            [
                f"**{one['name']}** {one['version']}".rstrip(),
                str(found["pass"]),
                bugs,
                str(found["convention"]),
                str(found["severe"]),
                str(found["precision"]),
                str(found["not-offered"]),
            ]
        )
    return Table(
        ("implementation", "hold", "bug", "convention", "severe", "precision", "not offered"),
        body,
        "Laws by outcome. A name with a colon is an option of a library, with only what that option changes.",
    )


def _matrix(main: Sequence[Row], rows: Sequence[Row], statements: Mapping[str, Row]) -> list[Block]:
    """Law × library: the worst outcome over dtypes, and folded the measured errors per dtype."""
    grouped = {one["name"]: by_law(rows, one["name"]) for one in main}
    offered = [
        law
        for law in statements
        if any(worst(grouped[one["name"]].get(law, [])) != "not-offered" for one in main)
    ]
    body: list[list[str | Cell]] = [
        [
            f"`{law}` {statements[law]['title']}",
            *(_mark(grouped[one["name"]].get(law, [])) for one in main),
        ]
        for law in offered
    ]
    header = ("law", *(str(one["name"]) for one in main))
    return [
        Table(header, body, "Worst outcome over all dtypes."),
        *(Fold(f"Measured errors: {one['name']}", [_errors(grouped[one["name"]])]) for one in main),
    ]


def _mark(rows: Sequence[Row]) -> Cell:
    text, tone = _MARKS[worst(rows)]
    return Cell(text, tone, ", ".join(row["dtype"] for row in rows if failed(row)))


def _errors(grouped: Mapping[str, Sequence[Row]]) -> Table:
    """Error over tolerance of each law, one column per dtype."""
    body: list[list[str | Cell]] = []
    for law, group in grouped.items():
        if worst(group) == "not-offered":
            continue
        cells = {row["dtype"]: _error(row) for row in group}
        body.append([f"`{law}`", *(cells.get(dtype, Cell("", "muted")) for dtype in DTYPES)])
    return Table(("law", *DTYPES), body, "Largest error (tolerance), in the law's own scale.")


def _error(row: Row) -> Cell:
    text, tone = _MARKS[kind(row)]
    if row["status"] == "not-offered":
        return Cell(text, tone)
    size = "raised" if row["status"] == "error" else _number(row["error"])
    label = f"{size} ({_number(row['tolerance'])})"
    return Cell(label if row["status"] == "pass" else f"{text} {label}", tone)


def _number(value: float | None) -> str:
    return "∞ or NaN" if value is None else "0" if value == 0 else f"{value:.1e}"


def _failures(
    rows: Sequence[Row], statements: Mapping[str, Row], described: Sequence[Row]
) -> list[Block]:
    """Every bug and convention in words: the smallest input, the second computation, the snippet."""
    blocks: list[Block] = []
    for one in described:
        told: list[Block] = []
        for law, group in by_law(rows, one["name"]).items():
            outcome = worst(group)
            if outcome in ("bug", "convention"):
                row = next(row for row in group if failed(row) and kind(row) == outcome)
                told += _told(row, statements[law], outcome)
        if told:
            blocks.append(Fold(f"What fails: {one['name']} {one['version']}".rstrip(), told))
    return blocks


def _told(row: Row, law: Row, outcome: str) -> list[Block]:
    checked = row["double_check"] or {}
    exact = checked.get("value")
    parts = [
        f"**{law['title']}** (`{law['law']}`, {outcome} in {row['dtype']}). Should hold: {law['statement']}",
        f"Found: {row['message']}",
        f"Meant otherwise: {row['convention']}" if row["convention"] else "",
        f"Computed again with 50 digits: {exact} ({checked['by']})." if exact else "",
        f"{checked['by']}." if checked and not exact else "",
    ]
    snippet: list[Block] = [Code(row["snippet"], "python")] if row["snippet"] else []
    return [Paragraph(" ".join(part for part in parts if part)), *snippet]


def _options_note(options: Sequence[Row]) -> list[Block]:
    if not options:
        return []
    return [
        Note(
            "A finding on an option says nothing about the library without it. Findings are those of the installed versions named above; "
            "releases move: measure again with `ddpm-bench verify --against NAME` before repeating any of them."
        )
    ]


def _weight_blocks(records: Sequence[Record]) -> list[Block]:
    """Which formula belongs to which space, from the latest record."""
    found = [r for r in sorted(records, key=lambda r: (r.created, r.sha256)) if r.kind == KIND]
    weights = found[-1].results["weights"]
    body: list[list[str | Cell]] = [
        [
            f"{row['weighting']} in {row['space']}",
            f"`{row['formula']}`",
            *map(_weight, row["values"]),
        ]
        for row in weights["rows"]
    ]
    steps = [f"t = {step}" for step in weights["steps"]]
    caption = (
        f"The factor on the squared error in each space, {weights['schedule']} schedule, T = {weights['T']}. S is ᾱ/(1−ᾱ) at t, S_prev at "
        "t − 1, c = ᾱ_{t−1} β²/(1−ᾱ)²; at t = 1 the bound's factor is the decoder's, 1/(2β₁) in x0 space. "
        "`ddpm-bench weights` prints it for any schedule and step."
    )
    table = Table(("weighting", "formula", *steps), body, caption)
    return [Fold("Which weight belongs to which prediction", [table])]


def _weight(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _headlines(described: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    lines = []
    for one in described:
        if one["name"] == OURS:
            ours = counts(by_law(rows, OURS))
            broken = sum(ours[name] for name in FAILURES)
            lines.append(
                f"**{ours['pass']} laws** hold on this implementation"
                + (f" and {broken} fail." if broken else ", none fails.")
            )
    others = [one for one in described if one["source"] not in (OURS, "article")]
    found = sum(len(_bugs(rows, one["name"])) for one in others)
    if others:
        sources = len({one["source"] for one in others})
        lines.append(
            f"Of {sources} other code base{'s' * (sources != 1)} under the same laws, {found} findings are bugs, "
            "each number computed a second time with 50 digits."
        )
    article = [one for one in described if one["source"] == "article"]
    if article:
        bugs = sum(counts(by_law(rows, one["name"]))["bug"] for one in article)
        lines.append(f"The article's own snippet breaks **{bugs} laws** as printed.")
    return lines


def _bugs(rows: Iterable[Row], name: str) -> set[str]:
    """Bugs of one implementation: one per law, and one for all laws that fail by the same exception."""
    bugs = [row for row in rows if row["implementation"] == name and kind(row) == "bug"]
    return {root(row) or row["law"] for row in bugs}


def _brief(row: Row) -> dict[str, Any]:
    keys = (
        "implementation",
        "law",
        "dtype",
        "status",
        "classification",
        "error",
        "tolerance",
        "message",
        "double_check",
    )
    return {key: row.get(key) for key in keys}
