"""report.html: one file, no network, no script; light or dark, on a phone and on paper.

The template decides on the look (`templates/report.html`, `templates/style.css`); this module turns
blocks into what the template places: inline markup into HTML, figures into SVG, columns of numbers
into right-aligned ones.
"""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.report.page import figures
from bench.report.page.blocks import WIDE, Block, Table, plain
from bench.report.page.document import Report

_TEMPLATES = Path(__file__).parent / "templates"
_NUMBER = re.compile(r"[<>≤≥≈±~×]?\s*[-−+]?\s*(\d|∞)|–$|—$|$")
_MARKUP = (
    (re.compile(r"(\[[−+\d.,]+,) ([−+\d.,]+\])"), "\\1\u00a0\\2"),  # an interval stays on one line
    (re.compile(r"\] ×"), "]\u00a0×"),
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*]+)(?<=\S)\*(?![\w*])"), r"<em>\1</em>"),
)


def render(report: Report) -> str:
    """The report as one self-contained HTML page."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = inline
    environment.filters["label"] = label
    environment.tests["numeric"] = is_number
    page = environment.get_template("report.html")
    return page.render(
        report=report,
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        palette=list(zip(figures.PALETTE, figures.DARK_PALETTE, strict=True)),
        kind=_kind,
        drawings=report.drawings,
        columns=_numeric_columns,
        many=WIDE,
    )


def styled(title: str, body: str) -> str:
    """A page in the report's style around a body that is HTML already; pictures of its own folder may be shown."""
    series = zip(figures.PALETTE, figures.DARK_PALETTE, strict=True)
    light, dark = zip(
        *((f"--series-{i}: {a};", f"--series-{i}: {b};") for i, (a, b) in enumerate(series)),
        strict=True,
    )
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' file: data:"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>:root {{ {' '.join(light)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {' '.join(dark)} }} }}\n{style}</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def inline(text: str) -> Markup:
    """`code`, **bold** and *emphasis* as HTML; everything else is escaped, links included."""
    result = str(escape(text))
    for pattern, replacement in _MARKUP:
        result = pattern.sub(replacement, result)
    return Markup(result)


def label(text: str) -> str:
    """The first sentence of a caption without markup, which names a table for readers who do not see it."""
    return figures.unmarked(text).partition(". ")[0].partition(": ")[0].rstrip(".")


def is_number(text: str) -> bool:
    """Whether a cell reads as a number, with or without interval and unit, or as a missing one."""
    return bool(_NUMBER.match(text.replace("**", "")))


def _kind(block: Block) -> str:
    return type(block).__name__


def _numeric_columns(table: Table) -> list[bool]:
    """For each column, whether all of its cells are numbers, which align to the right."""
    texts = [[plain(cell) for cell in row] for row in table.rows]
    columns = list(zip(*texts, strict=True)) or [()] * len(table.header)
    return [
        index > 0 and any(column) and all(map(is_number, column))
        for index, column in enumerate(columns)
    ]
