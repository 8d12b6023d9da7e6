r"""Render docs/derivation.md as one self-contained page: formulas as MathML, no script, no network.

    python -m pip install '.[docs]'
    python docs/build.py

MathML is laid out by the browser itself (Chromium, Firefox and Safari do), in the reader's own mathematical font, follows
the reader's text size and colours, and can be read aloud. Equation numbers come from \tag, as on GitHub, and
become anchors: #eq-10.
"""

import hashlib
import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

FOLDER = Path(__file__).parent
SOURCE, PAGE = FOLDER / "derivation.md", FOLDER / "derivation.html"
_TAG = re.compile(r"\\tag\{(\d+)\}")
_REFERENCE = re.compile(r"\((\d+)\)(?:–\((\d+)\))?")

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --muted: #58616d; --rule: #dfe3e8; --page: #fefefe; --link: #0068a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --muted: #a2abb6; --rule: #2e343c; --page: #15181c; --link: #55aef0; }
}
body { background: var(--page); color: var(--ink); font: 1.06rem/1.6 Georgia, "Times New Roman", serif;
  max-width: 47rem; margin: 3rem auto 6rem; padding: 0 1.2rem; }
h1 { font-size: 2rem; line-height: 1.2; margin-bottom: 1.5rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; }
code { font: .88em ui-monospace, Menlo, Consolas, monospace; }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", math; font-size: 1.08em; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.equation { display: flex; align-items: center; gap: 1rem; margin: 1.1rem 0; padding: .2rem 0; overflow-x: auto; }
.equation math { flex: 1; }
.number { color: var(--muted); }
.equation:target { background: color-mix(in srgb, var(--link) 12%, transparent); }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .94em; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { text-align: left; font-weight: 600; }
@media print { body { max-width: none; margin: 0; } .equation { overflow: visible; } }
"""


def render(text: str) -> str:
    """The page for a Markdown text with $…$ and $$…$$ formulas."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    markdown.use(dollarmath_plugin, double_inline=True, renderer=_formula)
    markdown.add_render_rule("table_open", _open_table)
    markdown.add_render_rule("table_close", _close_table)
    body = _linked(markdown.render(text))
    title = html.escape(re.search(r"^# (.+)$", text, re.MULTILINE)[1])  # type: ignore[index]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="source-sha256" content="{hashlib.sha256(text.encode()).hexdigest()}">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n<main>\n{body}</main>\n</html>\n"
    )


def _formula(content: str, options: dict[str, bool]) -> str:
    """One formula as MathML; a displayed one with its number at the right and an anchor."""
    number = _TAG.search(content)
    latex = _TAG.sub("", content).strip()
    if not options.get("display_mode"):
        return convert(latex)
    formula = convert(latex, display="block")
    if number is None:
        return f'<div class="equation">{formula}</div>'
    tag = number[1]
    return f'<div class="equation" id="eq-{tag}">{formula}<span class="number">({tag})</span></div>'


def _linked(body: str) -> str:
    """References such as (10) in running text become links to their equations."""
    numbers = set(re.findall(r'id="eq-(\d+)"', body))

    def link(found: "re.Match[str]") -> str:
        if found[1] not in numbers:
            return found[0]
        return f'<a href="#eq-{found[1]}">{found[0]}</a>'

    pieces = re.split(
        r'(<math.*?</math>|<span class="number">.*?</span>|<[^>]+>)', body, flags=re.DOTALL
    )
    return "".join(
        piece if piece.startswith("<") else _REFERENCE.sub(link, piece) for piece in pieces
    )


def _open_table(
    self: RendererProtocol, tokens: list[Token], index: int, options: object, env: object
) -> str:
    return '<div class="table"><table>'


def _close_table(
    self: RendererProtocol, tokens: list[Token], index: int, options: object, env: object
) -> str:
    return "</table></div>"


if __name__ == "__main__":
    PAGE.write_text(render(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
