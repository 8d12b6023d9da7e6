"""The section "History": every series that was measured more than once, over commits and torch releases.

asv's idea without its script: one measurement, the same settings and machine, in the order of time. Whether a step is more than
noise is for `ddpm-bench compare`, which tests it; this section shows where to look.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.record import Record
from bench.record.comparability import group, is_time, testable, times_refused
from bench.record.environment import commit_label, torch_label
from bench.report.page.blocks import Block, Figure, Fold, Paragraph, Section, Table
from bench.report.page.digits import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MOST = 12
"""Series that are drawn: those that moved most."""
_ABOUT = (
    "The same measurement at several commits or torch releases: medians, with the quartiles of the raw values. A step here is a "
    "place to look; `ddpm-bench compare OLD NEW` says whether it is more than noise."
)


@dataclass(frozen=True)
class Track:
    """One series over time: a label and the quartiles (25, 50, 75 %) at each record."""

    name: str
    unit: str
    labels: tuple[str, ...]
    quartiles: tuple[tuple[float, float, float], ...]

    @property
    def step(self) -> float:
        """Largest over smallest median; 1 where a median is not positive."""
        medians = [middle for _, middle, _ in self.quartiles]
        return max(medians) / min(medians) if min(medians) > 0 else 1.0


def section(records: Sequence[Record]) -> Section | None:
    """Where a series was measured twice or more, at different commits or releases; else None."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if testable(record):
            groups.setdefault(group(record), []).append(record)
    tracks = [track for held in groups.values() for track in _tracks(held)]
    if not tracks:
        return None
    ranked = sorted(tracks, key=lambda track: (-track.step, track.name))
    blocks: list[Block] = [Paragraph(_ABOUT), _figure(ranked[:MOST])]
    blocks.append(Fold(f"All {len(ranked)} series", [_table(ranked)]))
    data = {
        t.name: {"labels": list(t.labels), "quartiles": [list(q) for q in t.quartiles]}
        for t in ranked
    }
    return Section("History", blocks, data=data)


def _tracks(held: Sequence[Record]) -> list[Track]:
    """The series of one measurement; times of the newest record's machine only."""
    newest = held[-1]
    names = dict.fromkeys(name for record in held for name in testable(record))
    found = []
    for name in names:
        usable = [
            r
            for r in held
            if name in testable(r)
            and not (is_time(r.samples[name]["unit"]) and times_refused(r, newest))
        ]
        labels = [f"{commit_label(r.environment)}, {torch_label(r.environment)}" for r in usable]
        if len(set(labels)) > 1:
            found.append(
                Track(
                    f"{newest.kind}: {name}",
                    _unit(usable, name),
                    tuple(labels),
                    _spread(usable, name),
                )
            )
    return found


def _unit(records: Sequence[Record], name: str) -> str:
    return str(records[-1].samples[name]["unit"])


def _spread(records: Sequence[Record], name: str) -> tuple[tuple[float, float, float], ...]:
    found = [np.percentile(record.samples[name]["values"], [25, 50, 75]) for record in records]
    return tuple((float(low), float(middle), float(high)) for low, middle, high in found)


def _figure(tracks: Sequence[Track]) -> Figure:
    columns = 3
    lines = -(-len(tracks) // columns)

    def draw(canvas: "Canvas") -> None:
        panels = canvas.subplots(lines, columns, squeeze=False).flat
        for axes, track in zip(panels, tracks, strict=False):
            places = range(len(track.labels))
            low, middle, high = zip(*track.quartiles, strict=True)
            axes.fill_between(places, low, high, alpha=0.25, linewidth=0)
            axes.plot(places, middle, marker="o")
            axes.set_title(textwrap.fill(track.name.partition(": ")[2], 24), fontsize=6.5)
            axes.set_xticks(places, [label.partition(",")[0] for label in track.labels], fontsize=6)
            axes.set_ylabel(track.unit, fontsize=7)
            axes.set_ylim(bottom=0)
        for axes in list(canvas.axes)[len(tracks) :]:
            axes.set_visible(False)

    said = "; ".join(
        f"{t.name}: {number(t.quartiles[0][1])} to {number(t.quartiles[-1][1])} {t.unit}"
        for t in tracks
    )
    return Figure(
        "history",
        draw,
        f"Medians and quartiles by commit, oldest first: the {len(tracks)} series that moved most.",
        alt=f"First and last median of each series. {said}.",
        size=(7.0, 1.9 * lines + 0.2),
        narrow=(4.2, 2.0 * len(tracks)),
    )


def _table(tracks: Sequence[Track]) -> Table:
    rows = [
        [
            track.name,
            track.unit,
            " → ".join(number(middle) for _, middle, _ in track.quartiles),
            f"×{number(track.step)}",
            " → ".join(track.labels),
        ]
        for track in tracks
    ]
    return Table(["series", "unit", "medians", "largest / smallest", "commits and releases"], rows)
