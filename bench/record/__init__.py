"""What was measured, frozen: the record, its environment, its statistics, and what may be compared with what."""

from bench.record.record import (
    Json,
    Record,
    RecordError,
    checked_json,
    finite,
    is_series,
    load,
    new_record,
    save,
    series,
)
from bench.terminal.files import write_picture, write_text

__all__ = [
    "Json",
    "Record",
    "RecordError",
    "checked_json",
    "finite",
    "is_series",
    "load",
    "new_record",
    "save",
    "series",
    "write_picture",
    "write_text",
]
