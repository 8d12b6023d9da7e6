"""report.md: the same content for a repository's web page or a terminal.

The text blocks are written in a subset of Markdown, so `code`, **bold** and *emphasis* pass as they are. Everything else
that a Markdown reader would take for markup is escaped: a record's text becomes neither HTML nor a link, also where
bare addresses are made into links. Figures are files beside the report (`figures/NAME.svg`).
"""

import re
from collections.abc import Sequence

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
from bench.report.page.figures import unmarked

_SIGNS = {"good": "✓", "bad": "✗", "warn": "△"}
"""What stands for a tone where there is no colour."""


def render(report: Report) -> str:
    """The report as Markdown."""
    lines = [f"# {text(report.title)}", "", text(report.subtitle), ""]
    lines += [f"- ✗ {text(line.text)}" for line in report.failures]
    if report.front:
        lines += ["", " ".join(map(text, report.front.answer)), *_blocks(report.front.blocks)]
    lines += ["", "## All findings", ""]
    lines += [f"- {text(line.text)}" for line in report.verdict if not line.failed]
    for section in report.sections:
        lines += ["", *_section(section)]
    return "\n".join(lines).rstrip() + "\n"


_CODE = re.compile(r"(`[^`]+`)")
_ESCAPES = (
    ("&", "&amp;"),
    ("<", "&lt;"),
    (">", "&gt;"),
    ("](", "]\\("),
    ("][", "]\\["),
    ("://", "&#58;//"),
    ("www.", "www&#46;"),
)
"""What would become HTML or a link."""
_DEFINITION = re.compile(r"^(\[[^\]]*\]):")
"""What defines the address of a link elsewhere, at the beginning of a paragraph."""


def text(content: str) -> str:
    """A text on one line, with nothing that a Markdown reader takes for HTML or a link; `code` stays as it is."""
    flat = re.sub(r"`+", "`", " ".join(content.split()))
    pieces = _CODE.split(flat)
    return "".join(piece if index % 2 else _escaped(piece) for index, piece in enumerate(pieces))


def _escaped(piece: str) -> str:
    for mark, instead in _ESCAPES:
        piece = piece.replace(mark, instead)
    return _DEFINITION.sub(r"\1\\:", piece)


_ROUND = str.maketrans("[]", "()")
"""Square brackets would end the label of a picture."""


def _section(section: Section) -> list[str]:
    return [f"## {text(section.title)}", *_blocks(section.blocks)]


def _blocks(blocks: Sequence[Block]) -> list[str]:
    return [line for block in blocks for line in ("", *_block(block))]


def _block(block: Block) -> list[str]:
    match block:
        case Paragraph(content):
            return [text(content)]
        case Note(content, tone):
            sign = f"{_SIGNS[tone]} " if tone in _SIGNS else ""
            return [f"> {sign}{text(content)}"]
        case Code(content, language):
            fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", content)), default=0))
            return [f"{fence}{language}", *content.splitlines(), fence]
        case Table():
            return _table(block.upright)
        case Figure(name=name, caption=caption, alt=alt):
            label = text(unmarked(alt or caption).translate(_ROUND))
            return [f"![{label}](figures/{name}.svg)", "", text(caption)]
        case Fold(summary, blocks):
            return [f"**{text(summary)}**", *_blocks(blocks)]


def _table(table: Table) -> list[str]:
    body = [_row([_cell(cell) for cell in row]) for row in table.rows]
    rule = "|" + "---|" * len(table.header)
    caption = [text(table.caption), ""] if table.caption else []
    return [*caption, _row(list(map(text, table.header))), rule, *body]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return text(cell)
    if cell.tone == "strong":
        return f"**{text(cell.text)}**"
    sign = _SIGNS.get(cell.tone)
    return f"{sign} {text(cell.text)}" if sign else text(cell.text)
