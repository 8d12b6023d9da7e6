"""The documentation as one offline site: `tox -e docs`, or `sphinx-build docs docs/_build`.

Formulas become MathML while the site is built: browsers lay it out themselves, so no page needs a script or a network for
them. The page of the laws is written by `python -m docs.pages` and committed.
"""

import html
import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "Diffusion objective bench"
author = "its contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
html_show_copyright = html_show_sphinx = html_copy_source = False
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

default_role = "code"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Docstrings are written to be read in a terminal too: |x| and *dims are mathematics there, not markup.
suppress_warnings = ["docutils", "autodoc", "ref.python"]

_TAG = re.compile(r"\\tag\{(\d+)\}")


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (_inline, None), (_displayed, None))
    app.connect("source-read", _link_out)
    app.connect("autodoc-process-docstring", _readable, priority=400)  # before napoleon's sections


html_math_renderer = "mathml"


def _inline(translator: nodes.NodeVisitor, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))  # type: ignore[attr-defined]
    raise nodes.SkipNode


def _displayed(translator: nodes.NodeVisitor, node: nodes.math_block) -> None:
    """A formula of its own, with its number at the right and an anchor `eq-10`."""
    latex = node.astext()
    number = _TAG.search(latex)
    formula = convert(_TAG.sub("", latex).strip(), display="block")
    anchor = f' id="eq-{number[1]}"' if number else ""
    label = f'<span class="eqno">({html.escape(number[1])})</span>' if number else ""
    translator.body.append(  # type: ignore[attr-defined]
        f'<div class="math"{anchor} style="overflow-x: auto">{label}{formula}</div>\n'
    )
    raise nodes.SkipNode


_LINK = re.compile(r"\]\((?:\.\./)+([^)#\s]+)(#[^)\s]*)?\)")


def _link_out(app: Sphinx, name: str, source: list[str]) -> None:
    """Links into the repository, beyond docs/, name the file there: the site stands alone."""
    del app, name
    source[0] = _LINK.sub(lambda found: f"] (`{found[1]}`)", source[0])
    source[0] = re.sub(r"\[([^\]]+)\] \(`", r"\1 (`", source[0])


def _readable(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Docstrings are written for a terminal: their formulas are indented."""
    del app, what, name, thing, options
    from docs.pages import readable

    lines[:] = readable(lines)
