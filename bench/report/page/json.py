"""report.json: the whole report as strict JSON, for programs.

The shape is published as `bench/record/schema/report.schema.json`. Figures appear with their caption and
description; the numbers that they draw are in the `data` of their section.
"""

import json
from typing import Any

from bench.record import checked_json
from bench.report.page.blocks import (
    Block,
    Cell,
    Code,
    Figure,
    Fold,
    Note,
    Paragraph,
    Section,
    Table,
)
from bench.report.page.document import Report

SCHEMA = "ddpm-bench.report/1"


def render(report: Report) -> str:
    """The report as JSON text: strict, verdict first, equal for equal records."""
    content = {
        "schema": SCHEMA,
        "title": report.title,
        "subtitle": report.subtitle,
        "passed": report.passed,
        "answer": list(report.front.answer) if report.front else [],
        "front": [_block(block) for block in report.front.blocks] if report.front else [],
        "claims": [dict(claim) for claim in report.claims],
        "verdict": [
            {"text": line.text, "section": line.key, "failed": line.failed}
            for line in report.verdict
        ],
        "sections": [_section(section) for section in report.sections],
        "records": [
            {"file": r.name, "kind": r.kind, "created": r.created, "sha256": r.sha256}
            for r in report.records
        ],
        "left_out": [{"file": name, "reason": reason} for name, reason in report.left_out],
    }
    return (
        json.dumps(
            checked_json(content, "report"),
            allow_nan=False,
            ensure_ascii=False,
            indent=1,
        )
        + "\n"
    )


def _section(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": section.title,
        "failed": section.failed,
        "headlines": list(section.headlines),
        "blocks": [_block(block) for block in section.blocks],
        "data": checked_json(section.data, f"section {section.key}"),
    }


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Paragraph(text):
            return {"type": "paragraph", "text": text}
        case Note(text, tone):
            return {"type": "note", "text": text, "tone": tone}
        case Code(text, language):
            return {"type": "code", "text": text, "language": language}
        case Table(header, rows, caption):
            cells = [[_cell(cell) for cell in row] for row in rows]
            return {"type": "table", "header": list(header), "rows": cells, "caption": caption}
        case Figure(name=name, caption=caption, alt=alt):
            return {"type": "figure", "name": name, "caption": caption, "alt": alt or caption}
        case Fold(summary, blocks):
            inner = [_block(item) for item in blocks]
            return {"type": "fold", "summary": summary, "blocks": inner}


def _cell(cell: str | Cell) -> dict[str, str] | str:
    if isinstance(cell, str):
        return cell
    return {"text": cell.text, "tone": cell.tone, "hint": cell.hint}
