"""Records that were damaged or made by hand: refused by name, and one of them never costs the others."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.record import RecordError, load, new_record, save
from bench.record.record import checked_json

pytestmark = pytest.mark.any_torch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good record of a kind that every report shows."""
    parts = [{"part": "verify", "status": "done", "seconds": 1.0, "reason": "", "records": []}]
    protocol = {"preset": "quick", "data": "digits", "device": "cpu", "command": "ddpm-bench run"}
    save(new_record("run", protocol=protocol, results={"parts": parts}), tmp_path / "records")
    return tmp_path / "records"


def damaged(folder: Path, change) -> Path:
    (good,) = folder.glob("*-run-*.json")
    path = folder / "damaged.json"
    path.write_text(change(good.read_text()), encoding="utf-8", errors="surrogatepass")
    return path


def replaced(entry: str, value: object):
    return lambda text: json.dumps({**json.loads(text), entry: value})


DAMAGES = {
    "1e999": (lambda text: text.replace('"seconds": 1.0', '"seconds": 1e999'), "beyond the range of float64"),
    "-1e999": (lambda text: text.replace('"seconds": 1.0', '"seconds": -1e999'), "beyond the range of float64"),
    "NaN": (lambda text: text.replace('"seconds": 1.0', '"seconds": NaN'), "NaN is not JSON"),
    "huge integer": (lambda text: text.replace('"seconds": 1.0', f'"seconds": {10**400}'), "beyond ±2"),
    "digits without end": (lambda text: text.replace('"seconds": 1.0', '"seconds": ' + "9" * 5000), "not strict JSON"),
    "nesting": (lambda text: text.replace('"reason": ""', '"reason": ' + "[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "less nesting": (lambda text: text.replace('"reason": ""', '"reason": ' + "[" * 900 + "]" * 900), "damaged.json"),
    "half a surrogate pair": (lambda text: text.replace('"quick"', '"\\ud800"'), "half of a surrogate pair"),
    "half a surrogate pair as a key": (lambda text: text.replace('"preset"', '"\\udfff"'), "half of a surrogate pair"),
    "bytes that are not text": (lambda text: text.replace("quick", "\ud800"), "not strict JSON"),
    "results that are a list": (replaced("results", []), "results is a list"),
    "a kind that is a number": (replaced("kind", 3), "kind is a int"),
    "seeds that are words": (replaced("seeds", ["one"]), "seeds hold 'one'"),
    "seeds that are nothing": (replaced("seeds", None), "seeds is a NoneType"),
    "an entry too many": (replaced("more", 1), "unexpected keyword"),
    "no environment": (lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "environment"}), "environment"),
    "another value": (lambda text: text.replace('"quick"', '"slow"'), "was changed after it was written"),
    "half": (lambda text: text[: len(text) // 2], "not strict JSON"),
    "nothing": (lambda text: "", "not strict JSON"),
    "a list": (lambda text: "[]", "outermost value is not an object"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_refused_by_name(folder: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    path = damaged(folder, change)
    with pytest.raises(RecordError, match=message) as caught:
        load(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("damage", ["1e999", "nesting", "half a surrogate pair", "results that are a list"])  # fmt: skip
def test_one_bad_record_in_a_folder_does_not_cost_the_others(folder: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    damaged(folder, DAMAGES[damage][0])
    out = folder.parent / "report"
    assert main(["report", str(folder), "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert "damaged.json" in told.out + told.err
    assert "Traceback" not in told.err
    assert (out / "report.html").is_file()


def test_what_cannot_be_written_as_a_record_is_refused_when_it_is_made() -> None:
    for value in ("\ud800", {"\udfff": 1}, [2**64], {"a": [-(2**64)]}):
        with pytest.raises(ValueError, match="surrogate|beyond"):
            checked_json(value)
    assert checked_json(["a\n\t𝔸", 2**63]) == ["a\n\t𝔸", 2**63]


@pytest.mark.parametrize("name", ["$x_", "$\\frac{", "a $b$ c", "<b>&amp;", "_^{}\\"])
def test_names_are_drawn_as_they_are(name: str) -> None:
    from bench.report.page.blocks import Figure
    from bench.report.page.figures import svg

    def draw(canvas) -> None:
        axes = canvas.subplots()
        axes.plot([0, 1], [0, 1], label=name)
        axes.set_title(name)
        axes.set_xlabel(name)

    drawn = svg(Figure("odd", draw, caption="odd"))
    assert "$" not in name or "$" in drawn


@pytest.mark.parametrize("results", [None, "x", 1e300])
def test_results_of_another_shape_are_not_compared_and_cost_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str], results: object) -> None:  # fmt: skip
    """A whole record, hash and all, whose results are not those of its kind."""
    broken = new_record("verify", protocol={}, results=dict.fromkeys(("laws", "statements"), results))  # fmt: skip
    path = save(broken, tmp_path / "alone")
    assert main(["compare", str(path), str(path)]) == 2
    said = capsys.readouterr().err
    assert "not those of its kind" in said
    assert said.count("\n") == 1
