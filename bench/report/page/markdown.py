"""report.md: the same content for a repository's web page or a terminal.

The text blocks are written in the subset of Markdown that HTML gets translated from, so they pass
as they are. Figures are files beside the report (`figures/NAME.svg`).
"""

import re
from collections.abc import Iterator, Sequence

from bench.report.page.blocks import (
    Block,
    Cell,
    Code,
    Figure,
    Fold,
    Note,
    Paragraph,
    Section,
    Table,
)
from bench.report.page.document import Report

SIGNS = {"good": "✓", "bad": "✗", "warn": "△"}
"""What stands for a tone where there is no colour."""


def render(report: Report) -> str:
    """The report as Markdown."""
    lines = [f"# {report.title}", "", report.subtitle, "", "## Verdict", ""]
    lines += [f"- {'✗ ' if line.failed else ''}{line.text}" for line in report.verdict]
    for section in report.sections:
        lines += ["", *_section(section)]
    return "\n".join(lines).rstrip() + "\n"


def figures(report: Report) -> Iterator[Figure]:
    """Every figure of the report, in order."""
    for section in report.sections:
        yield from _figures(section.blocks)


def _figures(blocks: Sequence[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Fold):
            yield from _figures(block.blocks)


def _section(section: Section) -> list[str]:
    return [f"## {section.title}", *_blocks(section.blocks)]


def _blocks(blocks: Sequence[Block]) -> list[str]:
    return [line for block in blocks for line in ("", *_block(block))]


def _block(block: Block) -> list[str]:
    match block:
        case Paragraph(text):
            return [text]
        case Note(text, tone):
            sign = f"{SIGNS[tone]} " if tone in SIGNS else ""
            return [f"> {sign}{text}"]
        case Code(text, language):
            return [f"```{language}", *text.splitlines(), "```"]
        case Table():
            return _table(block)
        case Figure(name=name, caption=caption, alt=alt):
            return [f"![{_flat(alt or caption)}](figures/{name}.svg)", "", f"*{caption}*"]
        case Fold(summary, blocks):
            return [f"**{summary}**", *_blocks(blocks)]


def _table(table: Table) -> list[str]:
    body = [_row([_cell(cell) for cell in row]) for row in table.rows]
    rule = "|" + "---|" * len(table.header)
    caption = [f"**{table.caption}**", ""] if table.caption else []
    return [*caption, _row(table.header), rule, *body]


def _row(cells: Sequence[str]) -> str:
    escaped = (re.sub(r"\s*\n\s*", " ", cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return cell
    if cell.tone == "strong":
        return f"**{cell.text}**"
    sign = SIGNS.get(cell.tone)
    return f"{sign} {cell.text}" if sign else cell.text


def _flat(text: str) -> str:
    """Alternative text may hold neither brackets nor markup."""
    return re.sub(r"[\[\]`*]", "", " ".join(text.split()))
