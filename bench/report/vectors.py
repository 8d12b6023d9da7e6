"""Section on studies of vectors whose distribution is known: measured and predicted excess, and the samples."""

from collections.abc import Sequence
from typing import Any

from bench.record import Record
from bench.record.study import Results, completed, measure
from bench.report.page import digits
from bench.report.page.blocks import Block, Cell, Fold, Note, Paragraph, Section, Table
from bench.report.study.effects import arm_interval

_MEASURES = ("excess_v", "off_plane", "energy_distance", "told_apart")
_INTRODUCTION = (
    "Small networks on vectors whose distribution is known exactly. The *excess* is the mean squared distance of a network's estimate "
    "from the best possible one, in v, averaged evenly over log-SNR; *predicted* is what the closed form says about a network of this "
    "width (its least number of units), which is exact for linear networks and an order for others; 0 means that the closed form sees no bottleneck. "
    "The *energy off the plane* is 0 for real data; a two-sample classifier with accuracy ½ cannot tell samples from real data."
)


def apart(record: Record) -> str:
    """All studies of vectors stand in one section."""
    return "vectors" if record.kind == "study" and "truth" in record.results else ""


def section(records: Sequence[Record]) -> Section | None:
    """One table for every study, or None."""
    newest = {r.protocol.get("study") or r.name: r for r in records if apart(r)}
    if not newest:
        return None
    older = [r for r in records if apart(r) and r not in newest.values()]
    blocks: list[Block] = [Paragraph(_INTRODUCTION)]
    blocks += [Fold(f"{name}: {_what(record)}", _blocks(record)) for name, record in newest.items()]
    return Section(
        title="Vectors whose truth is known",
        blocks=blocks,
        data={name: _data(record.results) for name, record in newest.items()},
        failed=any("failed" in run for r in newest.values() for run in r.results["runs"]),
        left_out=[(r.name, "followed by a newer record of the same study") for r in older],
    )


def _what(record: Record) -> str:
    protocol, data = record.protocol, record.data or {}
    options = ", ".join(f"{k} {v}" for k, v in protocol["network_options"].items())
    return (
        f"`{data.get('name')}`, {protocol['network']} ({options}), {protocol['steps']:,} steps, "
        f"{len(record.seeds)} seeds"
    )


def _blocks(record: Record) -> list[Block]:
    results = record.results
    header = ["arm", "predicted excess", *(measure(key).label for key in _MEASURES), "diverged"]
    rows = [_row(results, arm["name"]) for arm in results["arms"]]
    caption = f"Means over {len(record.seeds)} seeds with 95 % intervals."
    return [Table(header, rows, caption), Note(_floor(results))]


def _row(results: Results, arm: str) -> list[str | Cell]:
    law = results["predictions"].get(arm)
    runs = completed(results, arm)
    steps = [str(run["diverged_at"]) for run in runs if run["diverged_at"] is not None]
    gone = f"{len(steps)} of {len(runs)}" + (f" (step {', '.join(steps)})" if steps else "")
    return [
        f"`{arm}`",
        "–" if law is None else digits.number(law["excess_v"]),
        *(digits.with_interval(arm_interval(results, measure(key), arm)) for key in _MEASURES),
        Cell(gone, "bad") if steps else gone,
    ]


def _floor(results: Results) -> str:
    floors = {name: values for name, values in results["truth"]["floor"].items() if values}
    if not floors or not results["truth"]["samples"]:
        return "No samples were drawn: this study is about denoising."
    told = ", ".join(
        f"{measure(name).label} {digits.number(sum(values) / len(values))}"
        for name, values in floors.items()
    )
    return f"Real data against real data, {results['truth']['samples']} of each: {told}."


def _data(results: Results) -> dict[str, Any]:
    return {
        arm["name"]: {
            "predicted": results["predictions"].get(arm["name"]),
            **{key: _json(results, key, arm["name"]) for key in _MEASURES},
        }
        for arm in results["arms"]
    }


def _json(results: Results, key: str, arm: str) -> dict[str, Any] | None:
    found = arm_interval(results, measure(key), arm)
    return None if found is None else found.as_json()
