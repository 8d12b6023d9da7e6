"""Records: strict JSON, a name that tells what it is, and a hash that notices every change."""

import hashlib
import json
import math
import re

import jsonschema
import numpy as np
import pytest

from bench.record import RecordError, checked_json, finite, load, new_record, save, series
from bench.record.schema import schema
from bench.terminal.usage import UsageError

pytestmark = pytest.mark.any_torch


def _record(**changes):
    content = {
        "protocol": {"T": 7, "command": "ddpm-bench run"},
        "data": {"name": "digits", "sha256": "0" * 64},
        "seeds": [2, 3, 5],
        "samples": {"time": series([1.5, 2.5], unit="s", better="lower", pairs=[2, 3])},
        "results": {"fd": None, "fd_reason": "arm diverged", "ε": (1, 2.0)},
    }
    return new_record("study", **{**content, **changes})


def test_round_trip(tmp_path):
    record = _record()
    assert load(save(record, tmp_path)) == record


def test_satisfies_the_published_schema(tmp_path):
    content = json.loads(save(_record(), tmp_path).read_text())
    jsonschema.validate(content, schema("record"), jsonschema.Draft202012Validator)


def test_name_tells_date_commit_kind_content(tmp_path):
    record = _record()
    name = save(record, tmp_path).name
    match = re.fullmatch(
        r"(\d{4}-\d{2}-\d{2})-([0-9a-f]{10}|nocommit)-study-([0-9a-f]{12})\.json", name
    )
    assert match
    assert match[1] == record.created[:10]
    assert record.sha256.startswith(match[3])


def test_the_stated_hash_is_that_of_the_rest(tmp_path):
    content = json.loads(save(_record(), tmp_path).read_text())
    stated = content.pop("sha256")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == stated


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"arm diverged"', '"arm converged"'),
        ("1.5", "1.25"),
        ('"T": 7', '"T": 8'),
        ('"kind": "study"', '"kind": "bound"'),
    ],
)
def test_any_change_is_noticed(tmp_path, old, new):
    path = save(_record(), tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RecordError, match="was changed after it was written"):
        load(path)


def test_append_only(tmp_path):
    record = _record()
    first, again = save(record, tmp_path), save(record, tmp_path)
    other = save(_record(seeds=[11]), tmp_path)
    assert first == again != other
    assert sorted(tmp_path.iterdir()) == sorted([first, other])  # and no temporary file is left


def test_a_damaged_file_is_not_overwritten(tmp_path):
    record = _record()
    path = save(record, tmp_path)
    path.write_text("{}")
    with pytest.raises(RecordError):
        save(record, tmp_path)
    assert path.read_text() == "{}"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_not_finite_is_refused_with_its_place(bad):
    with pytest.raises(ValueError, match=r"results\.arms\[1\]\.loss is"):
        _record(results={"arms": [{"loss": 1.0}, {"loss": bad}]})


@pytest.mark.parametrize("bad", [np.ones(3), np.int64(3), {1, 2}, b"x", 1j])
def test_what_has_no_json_form_is_refused_with_its_place(bad):
    with pytest.raises(TypeError, match=r"protocol\.x is a .*JSON types only"):
        _record(protocol={"x": bad})


def test_keys_are_strings():
    with pytest.raises(TypeError, match="has the key 3"):
        checked_json({3: "x"}, "results")


def test_a_record_does_not_follow_its_source():
    source = {"values": [1, 2]}
    record = _record(results=source)
    source["values"].append(3)
    assert record.results == {"values": [1, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not strict JSON"),
        ('{"schema": NaN}', "NaN is not JSON"),
        ("[1]", "outermost value is not an object"),
        ('{"schema": "ddpm-bench.record/999"}', "this program reads"),
        ('{"schema": "ddpm-bench.record/1", "seeds": []}', "is not a record"),
        ('{"schema": "ddpm-bench.record/1"}', "is not a record"),
    ],
)
def test_other_files_are_errors_of_use(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load(path)
    assert str(tmp_path) not in str(caught.value)


def test_finite():
    assert finite(1) == 1.0
    assert finite(math.nan) is finite(math.inf) is finite(None) is None


def test_series_needs_values_and_one_label_each():
    with pytest.raises(ValueError, match="at least one value"):
        series([], unit="s", better="lower")
    with pytest.raises(ValueError, match="2 pair labels for 3 values"):
        series([1, 2, 3], unit="s", better="lower", pairs=[1, 2])
