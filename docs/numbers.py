"""Numbers in README.md and docs/*.md come out of a report.json: written between markers, and compared by a test.

    python -m docs.numbers            write every marked text anew
    python -m docs.numbers --check    exit status 1 where one differs

A marker names the report's folder and what to show:

    <!-- report reports/quick answer -->…<!-- /report -->                    the three sentences of the first screen
    <!-- report reports/quick front -->…<!-- /report -->                     the table of the first screen
    <!-- report reports/quick findings -->…<!-- /report -->                  every finding, as a list
    <!-- report reports/quick finding verification 0 -->…<!-- /report -->    the first finding of the section `verification`
    <!-- report reports/quick value KEY PATH FORMAT -->…<!-- /report -->     a number of a section's data, `contests.0.dtype`

What is shown is Markdown, escaped as in report.md.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report.page.digits import number
from bench.report.page.markdown import text

ROOT = Path(__file__).parents[1]
_MARKED = re.compile(r"(<!-- report (\S+) ([^>]+?) -->)(.*?)(<!-- /report -->)", re.DOTALL)

Json = Any


def rendered(page: str, root: Path = ROOT) -> str:
    """The page with every marked text written anew.

    Raises:
        ValueError: a marker asks for what no report holds; the message names it.
    """

    def write(found: "re.Match[str]") -> str:
        start, folder, wanted, _, end = found.groups()
        try:
            report = json.loads((root / folder / "report.json").read_text(encoding="utf-8"))
            return f"{start}{_shown(report, wanted.split())}{end}"
        except (OSError, LookupError, ValueError, TypeError) as error:
            raise ValueError(f"marker `{start}`: {type(error).__name__}: {error}") from error

    return _MARKED.sub(write, page)


def _shown(report: Mapping[str, Json], words: Sequence[str]) -> str:
    what, *rest = words
    return _SHOWN[what](report, *rest)


def _answer(report: Mapping[str, Json]) -> str:
    return f"\n{' '.join(map(text, report['answer']))}\n"


def _front(report: Mapping[str, Json]) -> str:
    table = next(block for block in report["front"] if block["type"] == "table")
    rows = [[_cell(cell) for cell in row] for row in table["rows"]]
    lines = [table["header"], ["---"] * len(table["header"]), *rows]
    return "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def _cell(cell: Json) -> str:
    if isinstance(cell, str):
        return text(cell)
    return f"**{text(cell['text'])}**" if cell["tone"] == "strong" else text(cell["text"])


def _findings(report: Mapping[str, Json]) -> str:
    return "\n\n" + "\n".join(f"- {text(line['text'])}" for line in report["verdict"]) + "\n\n"


def _section(report: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    for section in report["sections"]:
        if section["key"] == key:
            return dict(section)
    raise KeyError(f"no section {key!r}; there are {[s['key'] for s in report['sections']]}")


def _finding(report: Mapping[str, Json], key: str, index: str = "0") -> str:
    return text(_section(report, key)["headlines"][int(index)])


def _value(report: Mapping[str, Json], key: str, path: str, form: str = "") -> str:
    value: Json = _section(report, key)["data"]
    for step in path.split("."):
        value = value[int(step)] if isinstance(value, list) else value[step]
    if isinstance(value, float | int):
        return format(value, form).replace("-", "−") if form else number(value)
    return text(str(value))


_SHOWN: Mapping[str, Callable[..., str]] = {
    "answer": _answer,
    "front": _front,
    "findings": _findings,
    "finding": _finding,
    "value": _value,
}


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(words: Sequence[str]) -> int:
    """Write, or with --check compare."""
    stale = []
    for path in pages():
        page = path.read_text(encoding="utf-8")
        fresh = rendered(page)
        if fresh != page:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in words:
                path.write_text(fresh, encoding="utf-8")
    print("\n".join(stale) if stale else "every number is that of its report")
    return 1 if stale and "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
