"""Heat map of the laws: every law × every implementation and option × every dtype, shaded by error over tolerance."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.report.laws.outcomes import DTYPES, Row, failed
from bench.report.page.blocks import Figure
from bench.report.page.figures import MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_ROOM = 2
_REACH = 4.0
"""Decades of error over tolerance that are shaded to either side of 1; what raised, or has no number, counts as the end."""


def heat_figure(described: Sequence[Row], rows: Sequence[Row]) -> Figure | None:
    """The map; None where nothing was offered."""
    shades = {
        (row["law"], row["implementation"], row["dtype"]): _shade(row)
        for row in rows
        if row["status"] != "not-offered"
    }
    laws = [
        law for law in dict.fromkeys(row["law"] for row in rows) if any(k[0] == law for k in shades)
    ]
    columns = [column for one in described for column in _columns(one["name"], shades)]
    if not laws or not columns:
        return None
    grid = [[shades.get((law, *column), math.nan) for column in columns] for law in laws]
    broken = sum(failed(row) for row in rows)

    def draw(canvas: "Canvas") -> None:
        from matplotlib.colors import LinearSegmentedColormap

        colors = ["#2b6ca3", "#dbe9f4", "#f7f2ea", "#f3a95f", "#a3200d"]
        axes = canvas.subplots()
        image = axes.imshow(
            grid,
            aspect="auto",
            cmap=LinearSegmentedColormap.from_list("errors", colors),
            vmin=-_REACH,
            vmax=_REACH,
        )
        axes.set_yticks(range(len(laws)), laws, fontsize=5)
        _name_columns(axes, columns)
        axes.grid(visible=False)
        bar = canvas.colorbar(image, ax=axes, location="top", aspect=50, pad=0.01)
        bar.set_label("log₁₀(error / tolerance): blue holds, red fails; blank: not offered")

    return Figure(
        "laws-heat",
        draw,
        f"Error over tolerance of {len(laws)} laws on {len(described)} implementations and options, each in up to {len(DTYPES)} "
        f"dtypes (in the order {', '.join(DTYPES)}); {broken} cells fail. What raised instead of answering is darkest.",
        alt=f"Heat map of {len(laws)} laws by {len(columns)} columns: {len(shades)} cells were checked, {broken} fail.",
        size=(7.0, 2.2 + 0.105 * len(laws)),
    )


def _columns(name: str, shades: Mapping[tuple[str, str, str], float]) -> list[tuple[str, str]]:
    """The dtypes of an implementation, and blanks until its name has room; none where it offers nothing."""
    held = [(name, dtype) for dtype in DTYPES if any(key[1:] == (name, dtype) for key in shades)]
    return held + [(name, "")] * (_ROOM - len(held)) if held else []


def _name_columns(axes: object, columns: Sequence[tuple[str, str]]) -> None:
    """One label per implementation, in the middle of its dtypes, and a line between two implementations."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    names = list(dict.fromkeys(name for name, _ in columns))
    places = {name: [k for k, column in enumerate(columns) if column[0] == name] for name in names}
    middles = [sum(places[name]) / len(places[name]) for name in names]
    axes.set_xticks(middles, list(map(_short, names)), rotation=90, fontsize=6)
    for name in names[1:]:
        axes.axvline(places[name][0] - 0.5, color=MUTED, linewidth=0.5, linestyle="-")


def _short(name: str) -> str:
    """An option without its library, beside which it stands."""
    _, option, words = name.partition(": ")
    told = f"· {words}" if option else name
    return told if len(told) <= 56 else f"{told[:55]}…"


def _shade(row: Row) -> float:
    """log₁₀ of error over tolerance, within ±`_REACH`, on the side that the verdict says."""
    error, tolerance = row["error"], row["tolerance"]
    if failed(row):
        known = isinstance(error, float | int) and error > 0 and tolerance
        return min(_REACH, max(0.3, math.log10(error / tolerance))) if known else _REACH
    if not error or not tolerance:
        return -_REACH
    return max(-_REACH, min(0.0, math.log10(error / tolerance)))
