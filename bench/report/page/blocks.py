"""What a report is made of: frozen blocks, drawn by one renderer each for HTML, Markdown and JSON.

A measuring module turns its records into one `Section`:

    def section(records: Sequence[Record]) -> Section | None: ...

It picks the records of its own kind and answers None where there are none. It computes nothing that
depends on the time, the machine or a random number: the same records give the same section.

**Text** (paragraphs, notes, captions, cells, headlines) may hold `code` in backticks, **bold** in
two stars and *emphasis* in one; nothing else is markup, and nothing is a link, because much of the text comes out of
records that others wrote. Write formulas in Unicode (ε, x₀, √ᾱ_t, λ): it is readable in all three renderings, in
figures too.

**Tables** hold strings: the section decides on digits and units. A `Cell` adds a tone (colour in
HTML, a sign in Markdown) and a hint. Columns of numbers are found and aligned by the renderer.

**Figures** draw into the matplotlib figure that they are given, already in the shared style
(`bench.report.page.figures`): use `PALETTE[i]` or the default cycle, and set neither fonts nor
backgrounds. Say in `alt` what a reader sees in it, with its numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Tone = Literal["plain", "good", "bad", "warn", "muted", "strong"]
"""plain · good (holds) · bad (fails) · warn (holds with a reservation) · muted · strong."""


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Note:
    """A remark set apart: what the reader must know before trusting the block before it."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Code:
    """Commands or a snippet, kept as it is."""

    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Cell:
    """A table cell with a tone, and a hint shown on hovering (never the only place of a fact)."""

    text: str
    tone: Tone = "plain"
    hint: str = ""


def plain(cell: "str | Cell") -> str:
    """The text of a cell."""
    return cell if isinstance(cell, str) else cell.text


WIDE = 7
"""Columns beyond which a table is transposed if that makes it narrower."""


@dataclass(frozen=True)
class Table:
    """Header and rows of equal length; the first column names the row.

    Raises:
        ValueError: a row is longer or shorter than the header.
        TypeError: a cell is neither a text nor a `Cell`, as a damaged record may make it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"a row of {len(row)} cells under a header of {len(self.header)}: {row!r}; "
                    "give one cell per column"
                )
            for cell in row:
                if not isinstance(plain(cell) if isinstance(cell, Cell) else cell, str):
                    raise TypeError(f"the cell {cell!r} is not a text; give a string or a Cell")

    @property
    def upright(self) -> "Table":
        """The table itself, or its transpose where it is wide and has more columns than rows.

        Paper and phones are higher than wide: 7 arms × 12 measures are read as 12 rows of 7.
        """
        if len(self.header) <= max(WIDE, len(self.rows) + 1):
            return self
        header = [self.header[0], *(plain(row[0]) for row in self.rows)]
        columns = zip(*(row[1:] for row in self.rows), strict=True)
        rows = [[name, *cells] for name, cells in zip(self.header[1:], columns, strict=True)]
        return Table(header, rows, self.caption)


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        name: short and unique in the report: `loss-curves`; the file name in Markdown.
        draw: called with an empty matplotlib figure in the shared style.
        caption: what it shows and what follows from it.
        alt: what a reader who cannot see it needs; the caption where empty.
        size: width and height in inches; 7 is the full width of the text.
        narrow: width and height on a phone, where panels that stand side by side are drawn one below the other; None for
            a figure that is scrolled there.
    """

    name: str
    draw: "Callable[[Canvas], None]"
    caption: str
    alt: str = ""
    size: tuple[float, float] = (7.0, 3.6)
    narrow: tuple[float, float] | None = None


@dataclass(frozen=True)
class Fold:
    """Blocks that only some readers want: folded behind `summary` in HTML, in line elsewhere."""

    summary: str
    blocks: "Sequence[Block]"


Block = Paragraph | Note | Code | Table | Figure | Fold


@dataclass(frozen=True)
class Front:
    """The first screen: what a reader learns in one minute.

    Attributes:
        answer: at most three sentences that somebody new to the matter understands: what was compared on what, which
            side leads by how much, how sure that is.
        blocks: the table, the claims and the one figure that support them.
    """

    answer: Sequence[str]
    blocks: Sequence[Block] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.answer) <= 3:
            raise ValueError(f"{len(self.answer)} sentences: the first screen has one to three")


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        title: its heading.
        blocks: what is in it, in order.
        data: the numbers behind it, for report.json (JSON types, finite or None).
        headlines: sentences for the verdict on top of the report, most important first; each stands
            alone and carries its figures.
        failed: the part is missing or broken, or a law failed: the report says so on top.
        front: the first screen, where this part can answer the report's question.
        claims: rows for the report's table of claims; the keys are `CLAIM_FIELDS`.
        left_out: records of this part's kind that it does not show, each with the reason; the report names them.
    """

    title: str
    blocks: Sequence[Block]
    data: Mapping[str, Any] = field(default_factory=dict)
    headlines: Sequence[str] = ()
    failed: bool = False
    front: Front | None = None
    claims: Sequence[Mapping[str, Any]] = ()
    left_out: Sequence[tuple[str, str]] = ()

    @property
    def key(self) -> str:
        """The title as an anchor: `How to reproduce` → `how-to-reproduce`."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


CLAIM_FIELDS = (
    "id",
    "source",
    "says",
    "predicted",
    "measured",
    "low",
    "high",
    "unit",
    "seeds",
    "verdict",
    "reason",
)
"""What report.json says of each claim; `verdict` begins with `holds`, `fails`, `within noise`, `too few seeds` or
`not measured`."""
