"""A report before it is rendered: a verdict, sections, and the records that they come from.

    records → sections (one function per part) → Report → HTML, Markdown, JSON

Every arrow is a pure function: the same records give the same bytes.
"""

import importlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from bench.record import Record
from bench.report.page.blocks import Note, Section

PARTS = ("laws", "throughput", "noise", "study", "bound", "mutation", "parts")
"""The modules of `bench.report` that turn records into a section, in the order of the page."""

VERDICT_ORDER = ("parts", "study", "laws", "throughput", "noise", "bound", "mutation")
"""The order of their headlines: what broke, then the question that people come with."""


class Part(Protocol):
    """A module that reports on one kind of record."""

    def section(self, records: Sequence[Record]) -> Section | None:
        """The section, or None where no record concerns it."""


@dataclass(frozen=True)
class Headline:
    """One sentence of the verdict and the section that supports it."""

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
        verdict: the headlines of all sections, most important first.
        sections: the parts in the order of the page.
        records: what they were computed from, oldest first.
        broken: a line for each part that could not be computed; its section holds it too.
    """

    title: str
    subtitle: str
    verdict: tuple[Headline, ...]
    sections: tuple[Section, ...]
    records: tuple[Record, ...]
    broken: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no section reports a failure."""
        return not any(section.failed for section in self.sections)


def build(records: Sequence[Record], parts: Sequence[str] = PARTS) -> Report:
    """The report on `records`; their order does not matter.

    Args:
        records: any kinds; a part without a record of its kind is absent.
        parts: names of modules in `bench.report`.
    """
    from bench.report import environment, reproduce, title

    unique = {record.sha256: record for record in records}
    ordered = tuple(sorted(unique.values(), key=lambda r: (r.created, r.kind, r.sha256)))
    attempts = {name: _attempt(name, ordered) for name in parts}
    present = {name: section for name, (section, _) in attempts.items() if section is not None}
    closing = (environment.section(ordered), reproduce.section(ordered))
    return Report(
        title=title.title(ordered),
        subtitle=title.subtitle(ordered),
        verdict=_verdict(present),
        sections=(*present.values(), *closing),
        records=ordered,
        broken=tuple(reason for _, reason in attempts.values() if reason),
    )


def _attempt(name: str, records: Sequence[Record]) -> tuple[Section | None, str]:
    """A part's section; where computing it raises, a section that says so, and the reason.

    One record in an unexpected shape must not cost the reader all the others.
    """
    part = _part(name)
    try:
        return part.section(records), ""
    except Exception as error:
        reason = f"{name}: {_reason(error)}"
        note = Note(f"This part could not be computed: {reason}", "bad")
        return Section(name.capitalize(), [note], failed=True), reason


def _reason(error: Exception) -> str:
    """Kind, message and place of an error, without a path."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


def _part(name: str) -> Part:
    return cast(Part, importlib.import_module(f"bench.report.{name}"))


def _verdict(present: Mapping[str, Section]) -> tuple[Headline, ...]:
    """What failed, because it puts the rest in doubt; then the headlines in `VERDICT_ORDER`."""
    order = [name for name in VERDICT_ORDER if name in present]
    order += [name for name in present if name not in order]
    sections = [present[name] for name in order]
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
