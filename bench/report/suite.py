"""Cases of the throughput suite in the report, each way for itself, and the curve over the size of the batch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.report.page.blocks import Block, Cell, Figure, Paragraph, Table
from bench.report.page.digits import number
from bench.report.page.figures import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Row = Mapping[str, Any]
_STYLES = ("-", ":", "--", "-.")

_FRACTION = (
    "**copy fraction**: the bytes that no way can avoid (x₀ read, x_t and ε written) per second, as a share of the bytes "
    "per second of a copy of the same size in the same run; **bytes/element**: what this way moves, intermediate "
    "results included; **compile**: the first call's extra time, with a cold cache, after the compiler itself was loaded."
)


def suite_blocks(rows: Sequence[Row]) -> list[Block]:
    """Tables by what is timed, the scaling curve, and everything that is not counted by the element."""
    elements = [row for row in rows if row["item"] == "element" and not _scales(row)]
    blocks: list[Block] = [
        _element_table(what, [row for row in elements if _what(row) == what])
        for what in dict.fromkeys(_what(row) for row in elements)
    ]
    if elements:
        blocks.append(Paragraph(_FRACTION))
    if curve := [row for row in rows if _scales(row)]:
        blocks.append(_scaling_figure(curve))
    if others := [row for row in rows if row["item"] != "element"]:
        blocks.append(_item_table(others))
    return blocks


def _scales(row: Row) -> bool:
    return str(row["name"]).startswith("test_scaling")


def _what(row: Row) -> str:
    """The group without the batch: `noise + q_sample`."""
    return str(row["group"]).partition(f" {row['shape']}")[0]


def _element_table(what: str, rows: Sequence[Row]) -> Table:
    header = [
        "way", "batch", "threads", "ns/element", "copy fraction", "bytes/element", "compile, s",
        "peak, MiB",
    ]  # fmt: skip
    body: list[list[str | Cell]] = [
        [
            f"{row['contender']}{' (ours)' * (row.get('origin') == 'own')}",
            _batch(row),
            str(row["threads"]),
            Cell(number(row["ns_per_item"]), "strong", f"quartiles {_quartiles(row)}"),
            f"{row['copy_fraction']:.0%}" if row["copy_fraction"] is not None else "–",
            _number(row["bytes_per_element"]),
            _number(row["compile_seconds"]),
            _mebibytes(row["peak_memory_bytes"]),
        ]
        for row in rows
    ]
    return Table(header, body, f"{what}, each way for itself; medians over rounds.")


def _batch(row: Row) -> str:
    return shape_of(row) if row["dtype"] == "float32" else f"{shape_of(row)} {row['dtype']}"


def _item_table(rows: Sequence[Row]) -> Table:
    header = ["what", "case", "batch", "threads", "time per item", "items/s", "peak, MiB"]
    body: list[list[str | Cell]] = [
        [
            str(row["group"]),
            str(row["contender"]),
            _batch(row),
            str(row["threads"]),
            Cell(f"{number(row['ns_per_item'] / 1e3)} µs/{row['item']}", "plain", row["verified"]),
            number(row["items_per_second"]),
            _mebibytes(row["peak_memory_bytes"]),
        ]
        for row in rows
    ]
    return Table(header, body, "Losses, training, sampling, bound and Fréchet distance.")


def _scaling_figure(rows: Sequence[Row]) -> Figure:
    """One colour a way, one line style a thread count."""
    ways = list(dict.fromkeys(str(row["contender"]) for row in rows))
    counts = sorted({int(row["threads"]) for row in rows}, reverse=True)
    curves = {
        (way, count): sorted(
            (row["items"], row["ns_per_item"])
            for row in rows
            if (row["contender"], row["threads"]) == (way, count)
        )
        for way in ways
        for count in counts
    }

    def draw(canvas: "Canvas") -> None:
        axes = canvas.add_subplot()
        for (way, count), points in curves.items():
            axes.plot(
                [size for size, _ in points],
                [time for _, time in points],
                color=PALETTE[ways.index(way) % len(PALETTE)],
                linestyle=_STYLES[counts.index(count) % len(_STYLES)],
                marker="o",
                markersize=3,
                label=f"{way}, {threads_in_words(count)}",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("elements of x₀")
        axes.set_ylabel("ns per element")
        canvas.legend(loc="outside lower center", ncols=2, fontsize=8)

    ends = "; ".join(
        f"{way}, {threads_in_words(count)}: {number(points[0][1])} at {points[0][0]:.0e}, "
        f"{number(points[-1][1])} at {points[-1][0]:.0e}"
        for (way, count), points in curves.items()
        if points
    )
    return Figure(
        "throughput-scaling",
        draw,
        "Noise + q_sample from batches that fit into caches to batches that do not: small ones pay for the call, "
        "large ones for memory.",
        alt=f"Nanoseconds per element against elements. {ends}.",
        size=(7.0, 4.6),
    )


def shape_of(case: Row) -> str:
    """`256x3x64x64` → `[256, 3, 64, 64]`."""
    sizes: str = case["shape"].replace("x", ", ")
    return f"[{sizes}]"


def threads_in_words(count: int) -> str:
    """`1 thread`, `2 threads`."""
    return "1 thread" if count == 1 else f"{count} threads"


def _quartiles(row: Row) -> str:
    scale = 1e9 / row["items"]
    return f"{number(row['low_quartile'] * scale)} … {number(row['high_quartile'] * scale)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _mebibytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:.1f}"
