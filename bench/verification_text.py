"""What `ddpm-bench verify` prints: a table per implementation, every failure in words, and an overview of several."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.verification import Examined
    from ddpm_ref.conformance import Outcome
    from ddpm_ref.conformance.lawbook import Law

DTYPES = ("float64", "float32", "bfloat16", "float16")
_ORDER = {"bug": 0, "convention": 1, "precision": 2, None: 3}
_WIDTH = 110
_MANNERS = ("I17", "I18")


def table(examined: "Examined", laws: "Sequence[Law]") -> str:
    """One line per law that the implementation offers something for; what it does not offer is listed below."""
    from ddpm_ref.conformance.adapters.from_file import is_file_reference
    from ddpm_ref.conformance.remarks import remarks

    adapter = examined.subject.implementation
    rows = {law.id: law for law in laws}
    by_law = _by_law(examined.outcomes)
    offered = [id for id, group in by_law.items() if any(o.status != "not-offered" for o in group)]
    lines = [
        "",
        f"{adapter.name} {adapter.version}".rstrip()
        + f": {_verdict(examined)}, {examined.seconds:.0f} s",
    ]
    if is_file_reference(examined.subject.source):
        notes = (_wrapped(f"note: {text}", "  ", "    ") for text in remarks(adapter))
        lines += [line for note in notes for line in note]
    if offered:
        head = "".join(f"{name:<20s}" for name in DTYPES)
        lines.append(f"  {'law':<24s}{'':<32s}{head}".rstrip())
        lines += [_line(rows[id], by_law[id]) for id in offered]
    silent = [id for id in by_law if id not in offered]
    if silent:
        words = f"not offered ({len(silent)} laws): {_missing(examined, silent)}"
        lines += _wrapped(words, "  ", "    ")
    return "\n".join(lines)


def failures(examined: "Iterable[Examined]", laws: "Sequence[Law]") -> str:
    """Each failed law once per implementation, bugs first: what should hold, the smallest input, how to see it."""
    known = {law.id: law for law in laws}
    blocks = [block for one in examined for block in _failures(one, known)]
    return "\n" + "\n\n".join(blocks) + "\n\n" if blocks else "\n"


def _failures(one: "Examined", known: "dict[str, Law]") -> list[str]:
    """One block per failed law; laws that fail by the same exception share one."""
    blocks: dict[str, str] = {}
    same: dict[str, list[str]] = {}
    for id, group in sorted(_failed(one).items(), key=lambda item: _rank(known[item[0]], item[1])):
        cause = _exception(group[0]) or id
        if cause in blocks:
            same.setdefault(cause, []).append(id)
        else:
            blocks[cause] = _failure(one, known[id], group)
    return [
        text + (f"\n{_entry('same for', ', '.join(same[cause]))}" if cause in same else "")
        for cause, text in blocks.items()
    ]


def _exception(outcome: "Outcome") -> str:
    """Type, text and line of what was raised, "" where nothing was."""
    for mark in (" raised ", "no case can be made: "):
        if mark in outcome.message:
            return outcome.message.partition(mark)[2]
    return ""


def overview(examined: "Sequence[Examined]") -> str:
    """How many laws hold and fail, one line per implementation."""
    width = max(len(one.subject.implementation.name) for one in examined)
    return "\n".join(
        f"{one.subject.implementation.name:<{width}s}  {_verdict(one)}" for one in examined
    )


def cell(outcome: "Outcome") -> str:
    """`ok 2e-16`, `BUG 0.5`, `precision 3e-05`, `convention`, `raised`, or a dash."""
    if outcome.status == "not-offered":
        return "-"
    if outcome.status == "pass":
        return f"ok {outcome.error:.0e}" if outcome.error else "ok"
    kind = {"bug": "BUG"}.get(outcome.classification or "", outcome.classification or "FAIL")
    if outcome.status == "error":
        return f"{kind} raised"
    return f"{kind} {outcome.error:.0e}" if math.isfinite(outcome.error) else f"{kind} nan/inf"


def _missing(examined: "Examined", silent: "Sequence[str]") -> str:
    """What the implementation lacks, each once: `schedule tables, posterior, target`."""
    name = examined.subject.implementation.name
    messages = [o.message for o in examined.outcomes if o.law in silent]
    return ", ".join(dict.fromkeys(m.removeprefix(f"{name} offers no ") for m in messages if m))


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _line(law: "Law", group: "Sequence[Outcome]") -> str:
    cells = {outcome.dtype: cell(outcome) for outcome in group}
    shown = "".join(f"{cells.get(name, ''):<20s}" for name in DTYPES)
    return f"  {law.id:<24s}{law.title:<32.31s}{shown}".rstrip()


def _verdict(examined: "Examined") -> str:
    """`52 laws hold, 3 fail (2 bug, 1 precision), 14 not offered`."""
    by_law = _by_law(examined.outcomes)
    failed = _failed(examined)
    silent = [id for id, group in by_law.items() if all(o.status == "not-offered" for o in group)]
    held = len(by_law) - len(failed) - len(silent)
    kinds = [_worst(group) for group in failed.values()]
    counts = [
        f"{kinds.count(kind)} {kind}"
        for kind in ("bug", "convention", "precision")
        if kind in kinds
    ]
    broken = f"{len(failed)} fail ({', '.join(counts)})" if failed else "none fails"
    return f"{held} laws hold, {broken}, {len(silent)} not offered"


def _by_law(outcomes: "Iterable[Outcome]") -> "dict[str, list[Outcome]]":
    grouped: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.law, []).append(outcome)
    return grouped


def _failed(examined: "Examined") -> "dict[str, list[Outcome]]":
    return _by_law(examined.failed)


def _rank(law: "Law", group: "Sequence[Outcome]") -> tuple[int, bool]:
    """Bugs first; among them a law on manners that found something: a mixed-up batch shows in many other laws as a wrong number."""
    cause = law.invariant in _MANNERS and not any(_exception(outcome) for outcome in group)
    return min(_ORDER[outcome.classification] for outcome in group), not cause


def _worst(group: "Sequence[Outcome]") -> str | None:
    return min((outcome.classification for outcome in group), key=lambda kind: _ORDER[kind])


def _failure(examined: "Examined", law: "Law", group: "Sequence[Outcome]") -> str:
    """The first failing dtype of the worst class stands for the law: the others are in the table."""
    worst = _worst(group)
    outcome = next(o for o in group if o.classification == worst)
    also = [o.dtype for o in group if o is not outcome]
    where = outcome.dtype + (f" (also {', '.join(also)})" if also else "")
    head = f"{examined.subject.implementation.name}: {law.id} {law.title}: {str(worst).upper()} in {where}"
    if worst == "precision":  # the formula is right: where it loses digits is all there is to say
        return f"{head}\n{_entry('found', outcome.message)}"
    parts = [
        head,
        _entry("holds", law.statement),
        _entry("found", outcome.message),
        _entry("convention", outcome.convention or ""),
        _entry("50 digits", _exact(outcome)),
        _entry("why", f"{law.derivation} {law.source}"),
        *(f"    | {line}" for line in outcome.snippet.splitlines()),
    ]
    return "\n".join(part for part in parts if part)


def _exact(outcome: "Outcome") -> str:
    from bench.double_check import double_check

    if outcome.classification != "bug":
        return ""
    checked = double_check(outcome.law, outcome.witness)
    if checked is None:
        return ""
    return checked["by"] if checked["value"] is None else f"{checked['value']} ({checked['by']})"


def _entry(name: str, text: str) -> str:
    if not text:
        return ""
    head = f"    {name + ':':<12s}"
    return "\n".join(_wrapped(text, head, " " * 16))
