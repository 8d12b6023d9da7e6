"""Section "How to reproduce": the commands, and the records that this page was computed from.

A record says how it was made in `protocol["command"]`.
"""

from collections.abc import Sequence

from bench.record import Record
from bench.report.page.blocks import Block, Code, Paragraph, Section, Table

_FEW = 3
"""Records that a command names one by one; more are named by their folder."""


def section(records: Sequence[Record], left_out: Sequence[tuple[str, str]] = ()) -> Section:
    """Commands from a clone to this page, the table of records, and which of them the page does not show."""
    folder = "records/" if len(records) > _FEW else ""
    names = folder or " ".join(f"records/{record.name}" for record in records)
    blocks: list[Block] = [
        Paragraph("To measure again, at the same commits:"),
        Code("\n".join(_measure(records))),
        Paragraph(
            "To make this page again from its records, byte for byte "
            "(with the same versions of matplotlib and jinja2):"
        ),
        Code(f"ddpm-bench report {names} --out report"),
        Table(
            ["record", "measured (UTC)", "SHA-256 of its content"],
            [[f"`{record.name}`", record.created, f"`{record.sha256}`"] for record in records],
            "Records: each file states this hash, and it is checked whenever the file is read.",
        ),
    ]
    if left_out:
        rows = [[f"`{name}`", reason] for name, reason in left_out]
        blocks.append(Table(["not shown", "why"], rows, "What was given and is not on this page."))
    return Section("How to reproduce", blocks)


def _measure(records: Sequence[Record]) -> list[str]:
    """The commands of each commit. A run states its own command and speaks for the parts that state none."""
    lines: list[str] = []
    for commit in dict.fromkeys(r.environment.get("commit") for r in records):
        group = [r for r in records if r.environment.get("commit") == commit]
        commands = dict.fromkeys(r.protocol.get("command") for r in group)
        said = [str(command) for command in commands if command]
        silent = dict.fromkeys(r.kind for r in group if not r.protocol.get("command"))
        if not any(r.kind == "run" for r in group):
            said += [f"# {kind}: its protocol is in the record" for kind in silent]
        lines += [f"git checkout {commit}"] * bool(commit) + said
    return lines or ["ddpm-bench run"]
