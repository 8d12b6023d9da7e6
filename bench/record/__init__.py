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
]
