"""Records: everything that is measured, frozen, in one versioned schema.

A record is written once and never changed. Its file name says when, of which commit, what kind
and which content, `2026-11-23-1a2b3c4d5e-study-9f86d081884c.json`; the file holds the SHA-256 of
its own content, and `load` checks it. It is strict JSON: a number that is not finite is `None`, with the
reason beside it under a name of its own (`"fd": null, "fd_reason": "arm diverged at step 812"`).

**Samples.** Raw measurements that a later `ddpm-bench compare` shall test go into `samples`, one
`series(…)` per name: its values, their unit, which direction is better, and the labels of the pairs
(seeds, rounds) where values of two records belong together. Other shapes, such as loss curves, may
lie beside them.

**By convention** `protocol["command"]` says how to measure again; `data["name"]` and
`data["sha256"]` identify the data.

The JSON Schema is `bench/record/schema/record.schema.json`.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bench.record.environment import environment as describe_environment
from bench.terminal.files import write_text
from bench.terminal.usage import UsageError

Json = Any
"""None, bool, int, finite float, str, list or dict with string keys, of the same."""

SCHEMA = "ddpm-bench.record/1"
_HASH_KEY = "sha256"
_LARGEST = 1 << 63


class RecordError(UsageError):
    """A file that is not a record, was changed after it was written, or has another schema."""


@dataclass(frozen=True)
class Record:
    """One measurement and all that is needed to judge it.

    Attributes:
        kind: what was measured: verify, throughput, study, bound, estimator, mutation, ….
        protocol: the settings that define the measurement; two records are comparable where
            `kind` and `protocol` agree.
        data: name, hash, split and attribution of the data set, None where none is used.
        seeds: the seeds that were used.
        samples: raw samples by name: `series(…)`, or any other shape that compare leaves alone.
        results: what was computed from them.
        environment: machine, versions, threads, commit (`bench.record.environment`).
        created: UTC, ISO 8601, to the second.
        schema: the version of this shape.
    """

    kind: str
    protocol: dict[str, Json]
    data: dict[str, Json] | None
    seeds: tuple[int, ...]
    samples: dict[str, Json]
    results: dict[str, Json]
    environment: dict[str, Json]
    created: str
    schema: str = SCHEMA

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the canonical JSON text; computed once, for nothing in a record changes."""
        return hashlib.sha256(_canonical(_content(self)).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The file name: date, commit, kind, start of the content hash."""
        commit = self.environment.get("commit") or "nocommit"
        return f"{self.created[:10]}-{commit[:10]}-{self.kind}-{self.sha256[:12]}.json"


def new_record(
    kind: str,
    *,
    protocol: Mapping[str, Json],
    data: Mapping[str, Json] | None = None,
    seeds: Sequence[int] = (),
    samples: Mapping[str, Json] | None = None,
    results: Mapping[str, Json] | None = None,
) -> Record:
    """A record of what was just measured; environment and time are filled in.

    Raises:
        ValueError: a value is not finite. Write None and the reason beside it (`finite` helps).
        TypeError: a value has no JSON form, such as a tensor. Use `.tolist()` or `.item()`.
    """
    return Record(
        kind=kind,
        protocol=checked_json(protocol, "protocol"),
        data=None if data is None else checked_json(data, "data"),
        seeds=tuple(int(seed) for seed in seeds),
        samples=checked_json(samples or {}, "samples"),
        results=checked_json(results or {}, "results"),
        environment=checked_json(describe_environment(), "environment"),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def series(
    values: Sequence[float],
    *,
    unit: str,
    better: Literal["lower", "higher", "neither"],
    pairs: Sequence[str | int] | None = None,
) -> dict[str, Json]:
    """Raw samples of one quantity, in the form that `ddpm-bench compare` tests.

    Args:
        values: the samples, all finite, in the order in which they were taken.
        unit: such as "s", "ns/element", "bits/dim".
        better: the direction that is an improvement.
        pairs: one label per value (a seed, say) where equal labels in two records mean that
            everything but the change was held equal; None for independent samples.
    """
    if not values:
        raise ValueError("a series needs at least one value; leave out what was not measured")
    if pairs is not None and len(pairs) != len(values):
        raise ValueError(f"{len(pairs)} pair labels for {len(values)} values; give one per value")
    shape: dict[str, Json] = {"values": [float(v) for v in values], "unit": unit, "better": better}
    return shape if pairs is None else {**shape, "pairs": list(pairs)}


def is_series(sample: Json) -> bool:
    """Whether a sample has the form of `series(…)`."""
    return isinstance(sample, dict) and {"values", "unit", "better"} <= set(sample)


def finite(value: float | None) -> float | None:
    """`value` as a float, or None where it is missing, infinite or not a number."""
    return float(value) if value is not None and math.isfinite(value) else None


def checked_json(value: Json, where: str = "value") -> Json:
    """A deep copy of `value` in JSON types only.

    Raises:
        ValueError, TypeError: see `new_record`; the message names the place.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        if not -_LARGEST <= value <= _LARGEST:
            raise ValueError(f"{where} is an integer beyond ±2**63")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: records hold None there, and the reason beside")
        return float(value)
    if isinstance(value, Mapping):
        return {_key(k, where): checked_json(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [checked_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"{where} is a {type(value).__name__}: records hold JSON types only; "
        "use .item() or .tolist() on arrays, dataclasses.asdict on dataclasses"
    )


def save(record: Record, directory: str | os.PathLike[str]) -> Path:
    """Write `record` under its own name and return the path; nothing is ever overwritten.

    The file appears whole or not at all. Saving the same record twice is one file.

    Raises:
        FileNotWrittenError: a full disk, for instance.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / record.name
    if path.exists():
        load(path)
        return path
    text = json.dumps(
        {**_content(record), _HASH_KEY: record.sha256},
        allow_nan=False,
        ensure_ascii=False,
        indent=1,
    )
    write_text(path, text + "\n")
    return path


def load(path: str | os.PathLike[str]) -> Record:
    """Read a record and check its schema and its content hash.

    Raises:
        RecordError: the file cannot be read, is not a record, or is not as it was written.
    """
    content = _read(Path(path))
    name = Path(path).name
    if content.get("schema") != SCHEMA:
        raise RecordError(f"{name} {_what_it_is(content)}")
    stated = content.pop(_HASH_KEY, None)
    try:
        checked_json(content, "the record")
        _check_types(content)
        record = Record(**{**content, "seeds": tuple(content["seeds"])})
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise RecordError(f"{name} is not a record: {error}; measure again") from error
    if stated != record.sha256:
        raise RecordError(
            f"{name} was changed after it was written: its content has the hash "
            f"{record.sha256[:12]}, it states {str(stated)[:12]}; restore it or measure again"
        )
    return record


def _what_it_is(content: Mapping[str, Json]) -> str:
    """What a file that is not a record of this version is, and what to do with it."""
    schema = content.get("schema")
    if isinstance(schema, str) and schema.startswith(SCHEMA.partition("/")[0] + "/"):
        return f"has schema {schema!r}, this program reads {SCHEMA!r}; read it with the version that wrote it"
    if isinstance(schema, str) and schema.startswith("ddpm-bench."):
        return f"is not a record but {schema!r}; give the records that it was made from"
    if "machine_info" in content and "benchmarks" in content:
        return "was written by pytest-benchmark; compare such files with `pytest-benchmark compare`"
    return f"was not written by ddpm-bench: it has no schema {SCHEMA!r}; give a record"


def _read(path: Path) -> dict[str, Json]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite_float)
    except RecursionError as error:
        raise RecordError(f"{path.name} is not a record: it is nested too deeply") from error
    except OSError as error:
        raise RecordError(f"cannot read {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"{path.name} is not strict JSON: {error}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path.name} is not a record: its outermost value is not an object")
    return content


_TYPES = {
    "kind": str,
    "protocol": dict,
    "data": dict | None,
    "seeds": list,
    "samples": dict,
    "results": dict,
    "environment": dict,
    "created": str,
}


def _check_types(content: Mapping[str, Json]) -> None:
    """Each entry of a record is of its type, so that no reader of it stumbles later."""
    for entry, wanted in _TYPES.items():
        if not isinstance(content[entry], wanted):
            raise TypeError(f"{entry} is a {type(content[entry]).__name__}")
    for seed in content["seeds"]:
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise TypeError(f"seeds hold {seed!r}, which is not a whole number")


def _finite_float(text: str) -> float:
    """1e999 is JSON and no float64: Python would read infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond the range of float64")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _content(record: Record) -> dict[str, Json]:
    content = {field.name: getattr(record, field.name) for field in fields(record)}
    return {**content, "seeds": list(record.seeds)}


def _canonical(content: Mapping[str, Json]) -> str:
    return json.dumps(
        content, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{where} has the key {key!r}: JSON keys are strings; use str(…)")
    return _text(key, where)


def _text(value: str, where: str) -> str:
    if not value.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(
            f"{where!a} holds half of a surrogate pair, which no text file can: use text that encodes as UTF-8"
        )
    return value
