"""The published shapes of what is written: JSON Schema, draft 2020-12.

record.schema.json   one record (`bench.record`)
report.schema.json   report.json (`bench.report.page.json`)
"""

import json
from importlib.resources import files
from typing import Any, Literal


def schema(name: Literal["record", "report"]) -> dict[str, Any]:
    """The JSON Schema of that name."""
    text = files(__package__).joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
