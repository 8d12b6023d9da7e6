"""One style for every figure, and its way into a page: SVG with the page's own colours and font.

matplotlib writes fixed colours. The style uses a few colours that stand for roles (ink, rule, series
one, …); in the finished SVG each becomes a CSS variable with the colour as its fall-back. So a figure
follows the page from light to dark, and a file of its own still shows what it should.

The same drawing gives the same bytes: ids are salted with the figure's name instead of a random
number, and nothing is dated. Ids carry the name, so that two figures in one page do not collide.

The series colours are those of Okabe and Ito (2008), darkened until they reach a contrast of 3 : 1
against white; line styles change along with them, so that no figure rests on colour alone.
"""

import html
import io
import re
from typing import Any

from bench.report.page.blocks import Figure

PALETTE = ("#0068a8", "#c8500a", "#00845f", "#a8528a", "#a87400", "#3a8fbf", "#5f6773")
"""Series colours: blue, vermilion, green, purple, amber, sky, grey."""
DARK_PALETTE = ("#55aef0", "#f7935a", "#3cc79f", "#e6a0cb", "#f0c04f", "#9ed6f7", "#a7b0bc")
"""Their counterparts on a dark page."""
INK, MUTED, RULE, PAGE = "#1b1f24", "#58616d", "#dfe3e8", "#fefefe"
"""Text, axes, grid lines, and the colour of the page (for gaps between marks)."""

_LINES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (3, 1.4)), (0, (8, 2)), "-")
_ROLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAGE: "--page",
    **{color: f"--series-{i}" for i, color in enumerate(PALETTE)},
}
_FONT = "var(--sans, system-ui, sans-serif)"


def svg(figure: Figure, *, narrow: bool = False) -> str:
    """Draw a figure and return one `<svg>` element, deterministic to the byte.

    Args:
        figure: what to draw.
        narrow: for a phone: panels that stand side by side are put one below the other.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    name = f"{figure.name}-narrow" if narrow else figure.name
    with mpl.rc_context(_style(name)):
        canvas = (_stacked(Canvas) if narrow else Canvas)(
            figsize=figure.narrow if narrow else figure.size, layout="constrained"
        )
        FigureCanvasSVG(canvas)
        figure.draw(canvas)
        _plain_powers(canvas)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _adopt(text.getvalue(), figure, name)


def _plain_powers(canvas: Any) -> None:
    """Numbers at logarithmic axes in Unicode: matplotlib's own are mathematical markup, which the style does not read."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return power(x) if super().__call__(x, pos) else ""

    for axes in canvas.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(Plain(labelOnlyBase=True))
                axis.set_minor_formatter(Plain(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(value: float) -> str:
    """`0.1`, `2000`, `10⁻⁶`, `3×10⁷`."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    digits, _, exponent = f"{value:.0e}".partition("e")
    raised = f"10{str(int(exponent)).translate(_RAISED)}"
    return raised if digits == "1" else f"{digits}×{raised}"


def _stacked(canvas: Any) -> Any:
    """A kind of canvas whose panels and legend entries stand below one another."""

    class Stacked(canvas):  # type: ignore[misc]
        def subplots(self, nrows: int = 1, ncols: int = 1, **options: Any) -> Any:
            options.pop("width_ratios", None)
            return super().subplots(nrows * ncols, 1, **options)

        def legend(self, *entries: Any, ncols: int = 1, **options: Any) -> Any:
            return super().legend(*entries, ncols=min(ncols, 2), **options)

    return Stacked


def standalone(drawing: str) -> str:
    """The result of `svg` as a file of its own, light or dark as the reader prefers."""
    dark = ";".join(f"--series-{i}:{color}" for i, color in enumerate(DARK_PALETTE))
    style = (
        "<style>@media (prefers-color-scheme: dark){svg{"
        f"--ink:#e6e9ed;--muted:#a2abb6;--rule:#2e343c;--page:#15181c;{dark}"
        "}}</style>"
    )
    head, _, body = drawing.partition(">")
    return f"{head}>{style}{body}\n"


def _style(salt: str) -> Any:
    from cycler import cycler

    return {
        "axes.axisbelow": True,
        "axes.edgecolor": MUTED,
        "axes.facecolor": "none",
        "axes.formatter.min_exponent": 4,
        "axes.formatter.use_mathtext": False,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.labelsize": 9.5,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": cycler(color=PALETTE) + cycler(linestyle=_LINES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "image.cmap": "gray",
        "image.interpolation": "none",
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "patch.linewidth": 0,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.color": INK,
        "text.parse_math": False,  # names from records may hold a $
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "xtick.labelsize": 9,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.labelsize": 9,
    }


def _adopt(text: str, figure: Figure, name: str) -> str:
    """The bare element: roles for colours, the page's font, ids of its own, a name and a description."""
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace("'DejaVu Sans', sans-serif", _FONT).replace("'DejaVu Sans'", _FONT)
    for color, role in _ROLES.items():
        text = text.replace(color, f"var({role}, {color})")
    label = html.escape(unmarked(figure.name.replace("-", " ").capitalize()), quote=False)
    told = html.escape(unmarked(figure.alt or figure.caption), quote=False)
    box = re.search(r'viewBox="[^"]*"', text)
    shape = box.group() if box else ""
    body = text[text.index(">") + 1 :]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{shape} role="img" aria-labelledby="{name}-name" aria-describedby="{name}-told">'
        f'<title id="{name}-name">{label}</title><desc id="{name}-told">{told}</desc>{body}'
    )


def unmarked(text: str) -> str:
    """A text without the marks of `code`, **bold** and *emphasis*, for labels, which have none."""
    text = re.sub(r"`([^`]+)`|\*\*([^*]+)\*\*", lambda m: m[1] or m[2], " ".join(text.split()))
    return re.sub(r"(?<![\w*])\*(?=\S)([^*]+)(?<=\S)\*(?![\w*])", r"\1", text)
