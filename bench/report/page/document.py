"""A report before it is rendered: a first screen, findings, sections, and the records that they come from.

    records → sections (one function per part) → Report → HTML, Markdown, JSON

Every arrow is a pure function: the same records give the same bytes.

**Nothing is mixed, nothing is dropped.** A part may tell records of its kind apart (`apart(record)`: another data set,
another machine); each group gets a section of its own under its own name, and beyond `MOST` groups the rest is
refused by name. A record that a section does not show is named as well, with the reason. A part that breaks, or a
figure that cannot be drawn, costs its own section only.
"""

import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

from bench.record import Record, checked_json
from bench.record.settling import claims_of
from bench.record.study import merged
from bench.report.page.blocks import Block, Figure, Fold, Front, Note, Paragraph, Section

PARTS = (
    *(
        "laws",
        "throughput",
        "noise",
        "study",
        "vectors",
        "losses",
        "capacity",
        "bound",
        "mutation",
        "history",
        "parts",
    ),
)
"""The modules of `bench.report` that turn records into a section, in the order of the page."""

_VERDICT_ORDER = (
    *(
        "parts",
        "study",
        "vectors",
        "capacity",
        "losses",
        "laws",
        "throughput",
        "noise",
        "bound",
        "mutation",
    ),
)
"""The order of their headlines: what broke, then the question that people come with."""

MOST = 4
"""Sections of one part on one page; the records beyond are named and refused."""


class Part(Protocol):
    """A module that reports on one kind of record.

    It may also offer `apart(record) -> str`: "" for a record of another kind, else the name of the group that may be
    shown in one section; and `rank(record) -> float`: groups with a greater rank come first (else the newer).
    """

    def section(self, records: Sequence[Record]) -> Section | None:
        """The section, or None where no record concerns it."""


@dataclass(frozen=True)
class Headline:
    """One sentence of the findings and the section that supports it."""

    text: str
    title: str
    key: str
    failed: bool


@dataclass(frozen=True)
class Report:
    """What a renderer needs, and nothing else.

    Attributes:
        title: the question that the report answers.
        subtitle: data, machine, commit and date of the measurements, in a line.
        front: the first screen; None where the records support none.
        verdict: the headlines of all sections, most important first.
        sections: the parts in the order of the page.
        claims: what published claims are worth, the most decisive first.
        records: what they were computed from, oldest first.
        drawings: name of a figure → SVG; `NAME-narrow` is its form for a phone.
        left_out: records that the page does not show, each with the reason.
        broken: a line for each part that could not be computed; its section holds it too.
    """

    title: str
    subtitle: str
    front: Front | None
    verdict: tuple[Headline, ...]
    sections: tuple[Section, ...]
    claims: tuple[Mapping[str, Any], ...]
    records: tuple[Record, ...]
    drawings: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no section reports a failure."""
        return not any(section.failed for section in self.sections)

    @property
    def failures(self) -> tuple[Headline, ...]:
        """What did not work: it puts the rest in doubt, so it stands above the answer."""
        return tuple(line for line in self.verdict if line.failed)


@dataclass(frozen=True)
class _Attempt:
    """What became of one group of records of one part."""

    part: str
    section: Section
    drawings: Mapping[str, str]
    reason: str = ""


def build(
    records: Sequence[Record],
    parts: Sequence[str] = PARTS,
    *,
    unread: Sequence[tuple[str, str]] = (),
) -> Report:
    """The report on `records`; their order does not matter.

    Args:
        records: any kinds; a part without a record of its kind is absent.
        parts: names of modules in `bench.report`.
        unread: files that are not records, each with the reason: the page says so.

    Raises:
        ValueError: two figures of different parts have one name.
    """
    from bench.report import environment, reproduce

    unique = {record.sha256: record for record in records}
    ordered = tuple(sorted(_whole(list(unique.values())), key=_age))
    attempts = [attempt for name in parts for attempt in _attempts(name, ordered)]
    rows, settled = _claims(attempts, ordered)
    left_out = [*unread, *(entry for a in attempts for entry in a.section.left_out)]
    left_out += [
        (r.name, f"no part of this report shows the kind {r.kind!r}") for r in _foreign(ordered)
    ]
    closing = [
        _guarded("environment", "Environment", lambda: environment.section(ordered)),
        _guarded("reproduce", "How to reproduce", lambda: reproduce.section(ordered, left_out)),
    ]
    every = [attempt for attempt in (settled, *attempts, *closing) if attempt is not None]
    return Report(
        **_heading(ordered),
        front=_front(attempts, rows),
        verdict=_verdict(every),
        sections=tuple(attempt.section for attempt in every),
        claims=rows,
        records=ordered,
        drawings=_merged(attempt.drawings for attempt in every),
        left_out=tuple(left_out),
        broken=tuple(attempt.reason for attempt in every if attempt.reason),
    )


def _age(record: Record) -> tuple[str, str, str]:
    return str(record.created), str(record.kind), record.sha256


def _whole(records: list[Record]) -> list[Record]:
    """The records with the shards of one study put together; where a damaged one forbids that, all as they are."""
    try:
        return merged(records)
    except (LookupError, TypeError, AttributeError, ValueError):
        return records


def _heading(records: Sequence[Record]) -> dict[str, str]:
    """Title and subtitle; a record with a damaged environment costs the subtitle."""
    from bench.report import title

    try:
        subtitle = title.subtitle(records)
    except Exception as error:
        subtitle = f"What was measured where cannot be said: {_reason(error)}"
    return {"title": title.title(records), "subtitle": subtitle}


def _claims(
    attempts: Sequence["_Attempt"], records: Sequence[Record]
) -> "tuple[tuple[Mapping[str, Any], ...], _Attempt | None]":
    """Every claim, the most decisive first, and their section; where settling one raises, none and the reason."""
    from bench.report import claims

    told = [row for attempt in attempts for row in attempt.section.claims]
    try:
        rows = claims.ranked([*told, *claims_of(records)])
    except Exception as error:
        return (), _broken("claims", "Claims", error)
    return rows, _guarded("claims", "Claims", lambda: claims.section(rows))


KINDS = (
    *("verify", "throughput", "throughput-contest", "training-contest", "gpu-visit", "noise"),
    *("study", "bound", "estimator", "capacity", "loss", "optimal-loss", "mutation", "run"),
)
"""The kinds of record that some part shows."""


def _foreign(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.kind not in KINDS]


def figures(blocks: Iterable[Block]) -> Iterator[Figure]:
    """Every figure among the blocks, in order, folded ones included."""
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Fold):
            yield from figures(block.blocks)


def _attempts(name: str, records: Sequence[Record]) -> Iterator[_Attempt]:
    """One attempt per group that the part tells apart; figures and titles of later groups are renamed."""
    part = cast(Part, importlib.import_module(f"bench.report.{name}"))
    try:
        groups, refused = _groups(part, records)
    except Exception as error:
        yield _broken(name, name.capitalize(), error)
        return
    for index, (label, group) in enumerate(groups):
        attempt = _attempt(name, part, group, label if len(groups) > 1 else "", index)
        if attempt is not None:
            left_out = [*attempt.section.left_out, *(refused if index == 0 else ())]
            yield replace(attempt, section=replace(attempt.section, left_out=left_out))


def _groups(
    part: Part, records: Sequence[Record]
) -> tuple[list[tuple[str, tuple[Record, ...]]], list[tuple[str, str]]]:
    """Records by the part's own `apart`, the most important group first, and what is beyond `MOST`."""
    apart = getattr(part, "apart", None)
    if apart is None:
        return [("", tuple(records))], []
    found: dict[str, list[Record]] = {}
    for record in records:
        if label := apart(record):
            found.setdefault(label, []).append(record)
    rank = getattr(part, "rank", lambda record: 0.0)
    ranked = sorted(
        found.items(),
        key=lambda item: (max(map(rank, item[1])), item[1][-1].created, item[0]),
        reverse=True,
    )
    refused = [
        (record.name, f"a page shows {MOST} measurements of one kind side by side; report it apart")
        for _, group in ranked[MOST:]
        for record in group
    ]
    return [(label, tuple(group)) for label, group in ranked[:MOST]], refused


def _attempt(
    name: str, part: Part, records: Sequence[Record], label: str, index: int
) -> _Attempt | None:
    """A part's section with its figures drawn; where that raises, a section that says so, and the reason."""
    title = name.capitalize() if not label else f"{name.capitalize()}: {label}"

    def make() -> Section | None:
        section = part.section(records)
        return None if section is None else _named(section, label, index)

    return _guarded(name, title, make)


def _guarded(name: str, title: str, make: Callable[[], Section | None]) -> _Attempt | None:
    """The section that `make` gives, with its figures drawn; where that raises, one that says so under `title`."""
    try:
        section = make()
        if section is None:
            return None
        checked_json(section.data, f"section {section.key}")
        return _Attempt(name, section, _drawn(section))
    except Exception as error:
        return _broken(name, title, error)


def _broken(name: str, title: str, error: Exception) -> _Attempt:
    """One record in an unexpected shape must not cost the reader all the others."""
    reason = f"{name}: {_reason(error)}"
    note = Note(f"This part could not be computed: {reason}", "bad")
    return _Attempt(name, Section(title, [note], failed=True), {}, reason)


def _named(section: Section, label: str, index: int) -> Section:
    """The section of one group among several: its name in title and headlines, its figures numbered."""
    if not label:
        return section
    front = section.front
    return replace(
        section,
        title=f"{section.title} ({label})",
        headlines=[f"({label}) {line}" for line in section.headlines],
        blocks=_renamed(section.blocks, index),
        front=front and replace(front, blocks=_renamed(front.blocks, index)),
    )


def _renamed(blocks: Sequence[Block], index: int) -> list[Block]:
    if index == 0:
        return list(blocks)
    return [
        replace(block, name=f"{block.name}-{index + 1}")
        if isinstance(block, Figure)
        else replace(block, blocks=_renamed(block.blocks, index))
        if isinstance(block, Fold)
        else block
        for block in blocks
    ]


def _drawn(section: Section) -> dict[str, str]:
    """Name → SVG of every figure of a section and of its first screen."""
    from bench.report.page.figures import svg

    blocks = [*(section.front.blocks if section.front else ()), *section.blocks]
    drawings: dict[str, str] = {}
    for figure in figures(blocks):
        if figure.name in drawings:
            raise ValueError(f"two figures are named {figure.name!r}; names are unique in a report")
        drawings[figure.name] = svg(figure)
        if figure.narrow:
            drawings[f"{figure.name}-narrow"] = svg(figure, narrow=True)
    return drawings


def _merged(groups: Iterable[Mapping[str, str]]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for drawings in groups:
        if twice := merged.keys() & drawings.keys():
            raise ValueError(f"two figures are named {min(twice)!r}; names are unique in a report")
        merged.update(drawings)
    return merged


def _reason(error: Exception) -> str:
    """Kind, message and place of an error, without a path."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


def _in_order(attempts: Sequence[_Attempt]) -> list[_Attempt]:
    """By `_VERDICT_ORDER`, parts that it does not name last."""
    order = {name: index for index, name in enumerate(_VERDICT_ORDER)}
    return sorted(attempts, key=lambda attempt: order.get(attempt.part, len(order)))


def _front(attempts: Sequence[_Attempt], rows: Sequence[Mapping[str, Any]]) -> Front | None:
    """The first screen of the first section that has one, with the others folded below; else the first headlines."""
    from bench.report import claims

    sections = [attempt.section for attempt in _in_order(attempts)]
    fronts = [(section.title, section.front) for section in sections if section.front]
    if not fronts:
        lines = [section.headlines[0] for section in sections if section.headlines]
        return Front(lines[:3]) if lines else None
    (_, first), *others = fronts
    folds = [Fold(title, [*map(Paragraph, front.answer), *front.blocks]) for title, front in others]
    blocks = [*first.blocks[:1], *claims.decisive(rows), *first.blocks[1:], *folds]
    return Front(first.answer, blocks)


def _verdict(attempts: Sequence[_Attempt]) -> tuple[Headline, ...]:
    """What failed, because it puts the rest in doubt; then the headlines in `_VERDICT_ORDER`."""
    sections = [attempt.section for attempt in _in_order(attempts)]
    failures = [_failure(section) for section in sections if section.failed]
    headlines = [
        Headline(text, section.title, section.key, failed=False)
        for section in sections
        for text in section.headlines
    ]
    return (*failures, *headlines)


def _failure(section: Section) -> Headline:
    text = f"**{section.title}**: not everything worked; the section says what and why."
    return Headline(text, section.title, section.key, failed=True)
