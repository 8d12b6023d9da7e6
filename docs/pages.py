"""The page of the laws, which is computed from the lawbook, and docstrings as Sphinx reads them.

python -m docs.pages             write docs/laws.md
python -m docs.pages --check     exit status 1 where it is not what would be written
"""

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path

LAWS_PAGE = Path(__file__).parent / "laws.md"


def laws_page() -> str:
    """Every law with its statement, derivation, source and tolerance, grouped by invariant."""
    from ddpm_ref.conformance.lawbook import LAWS

    lines = [
        "# The laws",
        "",
        f"{len(LAWS)} statements that every implementation of a diffusion objective must satisfy. Written from the lawbook",
        "(`ddpm_ref.conformance.lawbook`), by `python -m docs.pages`. `ddpm-bench verify` runs them, `ddpm-bench verify --list` lists them.",
    ]
    for law in LAWS.values():
        lines += ["", f"## {law.id}: {_line(law.title)}", "", _line(law.statement)]
        lines += ["", f"*Why:* {_line(law.derivation)}"]
        if law.source:
            lines += ["", f"*Source:* {_line(law.source)}"]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """A text on one line, with what Markdown would take for markup escaped outside of `code`."""
    flat = re.sub(r"\s+", " ", inspect.cleandoc(text)).strip()
    pieces = re.split(r"(`[^`]*`)", flat)
    return "".join(
        piece if index % 2 else re.sub(r"([*_<>\[\]$|\\])", r"\\\1", piece)
        for index, piece in enumerate(pieces)
    )


_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples):$")


def readable(lines: list[str]) -> list[str]:
    """A docstring's lines for Sphinx: indented formulas stay as they are written, and Markdown tables become tables."""
    result: list[str] = []
    inside = False
    index = 0
    while index < len(lines):
        line = lines[index]
        if line[:1].strip():
            inside = bool(_SECTION.match(line))
        count = _block(lines, index, inside)
        if count and line.startswith("|"):
            result += _list_table(lines[index : index + count])
        elif count:
            result += ["::", "", *lines[index : index + count], ""]
        else:
            result.append(_bars(line))
        index += count or 1
    return result


def _bars(line: str) -> str:
    """|x| is an absolute value here, and a substitution in reStructuredText."""
    pieces = re.split(r"(`[^`]*`)", line)
    return "".join(p if k % 2 else p.replace("|", "\\|") for k, p in enumerate(pieces))


def _block(lines: list[str], index: int, inside: bool) -> int:
    """How many lines from here on are one table or one indented block; 0 where none begins."""
    starts = index == 0 or not lines[index - 1].strip()
    if lines[index].startswith("|"):
        ends = (k for k in range(index, len(lines)) if not lines[k].startswith("|"))
        count = next(ends, len(lines)) - index
        return count if count > 2 else 0
    if inside or not starts or not lines[index].startswith("    "):
        return 0
    ends = (
        k for k in range(index, len(lines)) if lines[k].strip() and not lines[k].startswith(" ")
    )
    return next(ends, len(lines)) - index


def _list_table(rows: list[str]) -> list[str]:
    """A Markdown table as reStructuredText."""
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (rows[0], *rows[2:])]
    body = [
        f"   {'* -' if place == 0 else '  -'} {cell}"
        for row in cells
        for place, cell in enumerate(row)
    ]
    return [".. list-table::", "   :header-rows: 1", "", *body, ""]


def main(words: Sequence[str]) -> int:
    """Write, or with --check compare."""
    fresh = laws_page()
    if LAWS_PAGE.is_file() and LAWS_PAGE.read_text(encoding="utf-8") == fresh:
        return 0
    if "--check" in words:
        print(f"docs/{LAWS_PAGE.name} is not that of the lawbook: python -m docs.pages")
        return 1
    LAWS_PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
