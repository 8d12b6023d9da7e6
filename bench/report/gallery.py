"""The gallery: an index of reports, newest first, each with its answer and a picture of its first screen.

Generated from the `report.json` of each folder and nothing else; `report.png` is shown where it lies beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import escape

from bench.report.page.html import inline, styled
from bench.report.page.markdown import text

_ABOUT = """
    records/    what was measured: one frozen JSON file per measurement, never changed
    NAME/       report.html, report.md, report.json and figures/, computed from records alone

**Read a report** by opening its `report.html`: one file, without network or script, in light and dark, on a phone and on
paper. `report.md` holds the same for this web page, `report.json` for programs.

**Make a report again** from its records, byte for byte with the same versions of matplotlib and jinja2, then this index:

    ddpm-bench report reports/records --out reports/quick
    ddpm-bench report --gallery reports

**Compare** two records, two folders of records, or releases of torch:

    ddpm-bench compare OLD NEW
    ddpm-bench compare --by torch RECORDS…

**A record's name** says date, commit, kind and content: `2026-11-23-1a2b3c4d5e-study-9f86d081884c.json`. The file states the
SHA-256 of its own content, and every program that reads it checks that. Its shape is `bench/record/schema/record.schema.json`.
It names the machine's hardware and the versions of everything that computes, and neither a host nor a person.

**Add a record**: measure on a committed tree (a `+` after the commit in a report means that it had changes), then commit the new
file. Nothing in `records/` is edited; a measurement that turns out to be wrong, or is of code that has changed, is followed by
another one.
"""


@dataclass(frozen=True)
class Entry:
    """One report of the gallery.

    Attributes:
        folder: its name below the gallery.
        title: the question.
        subtitle: data, machine, commits, dates.
        answer: the sentences of its first screen.
        newest: when its newest record was measured.
        picture: whether a picture lies beside it.
        passed: whether everything worked.
    """

    folder: str
    title: str
    subtitle: str
    answer: tuple[str, ...]
    newest: str
    picture: bool
    passed: bool


def entries(gallery: Path) -> list[Entry]:
    """The reports in the folders below `gallery`, newest first."""
    found = [_entry(path) for path in sorted(gallery.glob("*/report.json"))]
    return sorted(found, key=lambda entry: (entry.newest, entry.folder), reverse=True)


def _entry(path: Path) -> Entry:
    report = json.loads(path.read_text(encoding="utf-8"))
    return Entry(
        folder=path.parent.name,
        title=str(report["title"]),
        subtitle=str(report["subtitle"]),
        answer=tuple(map(str, report.get("answer", ()))),
        newest=max((str(record["created"]) for record in report["records"]), default=""),
        picture=(path.parent / "report.png").is_file(),
        passed=bool(report["passed"]),
    )


def write(gallery: Path) -> list[Path]:
    """Write `index.html` and `README.md` of the gallery and return their paths."""
    found = entries(gallery)
    pages = {"index.html": _html(found), "README.md": _markdown(found)}
    for name, page in pages.items():
        (gallery / name).write_text(page, encoding="utf-8", newline="\n")
    return [gallery / name for name in pages]


def _markdown(found: Sequence[Entry]) -> str:
    lines = ["# Reports and their records"]
    for entry in found:
        folder = text(entry.folder)
        lines += ["", f"## [{folder}]({folder}/report.md): {text(entry.title)}", ""]
        lines += [text(entry.subtitle), ""]
        if entry.picture:
            lines += [
                f"[![The first screen of {folder}]({folder}/report.png)]({folder}/report.md)",
                "",
            ]
        lines += [" ".join(map(text, entry.answer))]
        lines += (
            [] if entry.passed else ["", "✗ Not everything worked: the report says what and why."]
        )
    return "\n".join([*lines, "", "## What lies here", _ABOUT.rstrip(), ""])


def _html(found: Sequence[Entry]) -> str:
    body = "\n".join(_article(entry) for entry in found) or "<p>No reports yet.</p>"
    return styled("Reports", f"<header><h1>Reports</h1></header>\n<main>\n{body}\n</main>")


def _article(entry: Entry) -> str:
    """One report: picture and words lead to its page, which lies beside the index."""
    address = escape(f"{entry.folder}/report.html")
    picture = f'<a href="{address}"><img src="{escape(entry.folder)}/report.png" alt="First screen of {escape(entry.folder)}" loading="lazy" style="max-width: 100%; border: 1px solid var(--rule)"></a>'
    answer = " ".join(str(inline(line)) for line in entry.answer)
    failed = '<p class="note bad">Not everything worked: the report says what and why.</p>'
    return "\n".join(
        [
            "<section>",
            f'<h2><a href="{address}">{escape(entry.folder)}</a>: {inline(entry.title)}</h2>',
            f'<p class="subtitle">{escape(entry.subtitle)}</p>',
            f"<p>{answer}</p>",
            *([] if entry.passed else [failed]),
            *([picture] if entry.picture else []),
            "</section>",
        ]
    )
