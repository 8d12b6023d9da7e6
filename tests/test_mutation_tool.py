"""The mutation tool edits what it should, runs the tests on the edit, and counts honestly."""

import ast
import textwrap
from pathlib import Path

import pytest

from bench.report.mutation import section
from tests.mutation import campaign
from tests.mutation.__main__ import main
from tests.mutation.campaign import Result, draw, explanations, files, population, score
from tests.mutation.operators import Mutation, apply, mutations
from tests.mutation.results import record
from tests.mutation.seeded import Seeded
from tests.mutation.worker import Verdict, module_name

pytestmark = pytest.mark.any_torch

SOURCE = textwrap.dedent('''
    """1 + 1 in a docstring."""
    from typing import TypeAlias

    Pair: TypeAlias = "int | str"

    def half(x: "int | str", y: int = 3) -> "int | None":
        """2 + 2"""
        if x < 0 and not y:
            raise ValueError(f"x = {x + 1}")
        return -mod(x, y) + 2.5 * x
''')


def edits() -> set[tuple[str, str]]:
    return {(m.before, m.after) for m in mutations("f.py", SOURCE)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("if x < 0 and (not y):", "if x <= 0 and (not y):"),
        ("if x < 0 and (not y):", "if x >= 0 and (not y):"),
        ("if x < 0 and (not y):", "if x < 1 and (not y):"),
        ("if x < 0 and (not y):", "if x < 0 or not y:"),
        ("if x < 0 and (not y):", "if x < 0 and y:"),
        ("if x < 0 and (not y):", "if not (x < 0 and (not y)):"),
        ("return -mod(x, y) + 2.5 * x", "return -mod(x, y) - 2.5 * x"),
        ("return -mod(x, y) + 2.5 * x", "return -mod(x, y)"),
        ("return -mod(x, y) + 2.5 * x", "return 2.5 * x"),
        ("return -mod(x, y) + 2.5 * x", "return mod(x, y) + 2.5 * x"),
        ("return -mod(x, y) + 2.5 * x", "return -mod(y, x) + 2.5 * x"),
        ("return -mod(x, y) + 2.5 * x", "return -mod(x, y) + 5.0 * x"),
        ("return -mod(x, y) + 2.5 * x", "return -mod(x, y) + 2.5 / x"),
    ],
)
def test_edits(before: str, after: str) -> None:
    assert (before, after) in edits()


def test_strings_annotations_and_messages_are_left_alone() -> None:
    text = "\n".join(after for _, after in edits())
    assert "raise" not in text
    for mutation in mutations("f.py", SOURCE):
        mutated = ast.parse(apply(mutation, SOURCE))
        assert ast.get_docstring(mutated) == "1 + 1 in a docstring."
        assert "int | str" in ast.unparse(mutated)
        assert "x + 1" in ast.unparse(mutated)


def test_applied_mutations_differ_from_the_source_and_from_each_other() -> None:
    everything = mutations("f.py", SOURCE)
    texts = [apply(mutation, SOURCE) for mutation in everything]
    assert ast.unparse(ast.parse(SOURCE)) not in texts
    assert len(set(texts)) == len(texts)


def test_every_module_of_the_mathematics_is_in_the_population() -> None:
    parts = list(campaign.TESTS)
    assert {"schedule", "process", "parameterization", "objective", "elbo", "gaussian"} <= set(
        parts
    )
    assert {"oracle", "noise"} <= set(parts)
    paths = {mutation.path for mutation in population(parts)}
    empty = {"ddpm_ref/oracle/__init__.py", "ddpm_ref/estimator/__init__.py"}
    assert paths == {path for part in parts for path in files(part)} - empty


def test_the_draw_is_seeded() -> None:
    everything = population(["process"])
    assert draw(everything, 20, 3) == draw(everything, 20, 3)
    assert draw(everything, 20, 3) != draw(everything, 20, 4)
    assert draw(everything, 10**6, 3) == everything


def test_module_names() -> None:
    assert module_name("ddpm_ref/oracle/base.py") == "ddpm_ref.oracle.base"
    assert module_name("ddpm_ref/oracle/__init__.py") == "ddpm_ref.oracle"


def result(status: str, reason: str = "", after: str = "b") -> Result:
    mutation = Mutation("ddpm_ref/process.py", 1, 0, "number", 7, "a", after)
    return Result(mutation, Verdict(status, "tests/test_process.py::test_x", 1.0), reason)


def test_equivalent_mutations_do_not_count_and_timeouts_do() -> None:
    results = [result("killed"), result("timeout"), result("survived"), result("survived", "same")]
    assert score(results) == (2, 3)


def test_explanations_apply_to_statements_that_exist() -> None:
    """An entry whose statement has changed is dead wood; one for a mutation that is not made, a mistake."""
    made = {(m.path, m.before, m.after) for m in population(list(campaign.TESTS))}
    known = explanations()
    assert set(known) <= made
    assert all(len(reason) > 20 for reason in known.values())


def test_record_and_section() -> None:
    results = [result("killed"), result("survived", after="c"), result("survived", "same", "d")]
    seeded = [Seeded("kl-reversed", "KL reversed", "", ("I9-kl",), ())]
    made = record(results, seeded, seed=5, population=99, parts=["process"])
    assert made.results["killed"] == 1
    assert made.results["counted"] == 2
    assert [row["after"] for row in made.results["survivors"]] == ["c"]
    shown = section([made])
    assert shown is not None
    assert "1 of 2 random defects" in shown.headlines[0]
    assert "1 of 1 seeded" in shown.headlines[1]
    assert section([]) is None


def test_a_seeded_defect_that_is_missed_fails_the_section() -> None:
    seeded = [Seeded("kl-reversed", "KL reversed", "", ("I9-kl",), ("I9-kl",))]
    shown = section([record([], seeded, seed=5, population=99, parts=[])])
    assert shown is not None
    assert shown.failed


def _installed_as_a_plugin(folder: Path) -> None:
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Name: example\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[pytest11]\nexample = ddpm_ref\n")
    (folder / "SOURCES.txt").write_text("ddpm_ref/__init__.py\nddpm_ref/process.py\n")


def test_one_mutant_lives_and_one_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way on a project of two lines: one edit is seen by its test, the other is not."""
    (tmp_path / "ddpm_ref").mkdir()
    (tmp_path / "tests").mkdir()
    # what an editable installation leaves beside the source: pytest takes the modules of a plugin's package for its own
    _installed_as_a_plugin(tmp_path / "example.egg-info")
    (tmp_path / "ddpm_ref" / "__init__.py").write_text("")
    (tmp_path / "ddpm_ref" / "process.py").write_text("SEEN = True\nUNSEEN = True\n")
    (tmp_path / "tests" / "test_process.py").write_text(
        "import sys\nfor name in [n for n in sys.modules if n.startswith('ddpm_ref')]:\n"
        "    del sys.modules[name]\n"
        "def test_seen():\n    from ddpm_ref.process import SEEN\n    assert SEEN is True\n"
    )
    monkeypatch.setattr(campaign, "ROOT", tmp_path)
    monkeypatch.setattr(campaign, "TESTS", {"process": ("tests/test_process.py",)})
    monkeypatch.setattr(campaign, "preload", lambda: None)
    assert campaign.control(["ddpm_ref/process.py"]) > 0
    seen: list[Result] = []
    results = campaign.run(
        population(["process"]), jobs=2, timeout=60, on_result=seen.append, known={}
    )
    verdicts = {r.mutation.after: r.verdict.status for r in results}
    assert verdicts == {"SEEN = False": "killed", "UNSEEN = False": "survived"}
    assert len(seen) == 2


def test_unknown_modules_are_an_error_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--modules", "proces"]) == 2
    assert "did you mean process?" in capsys.readouterr().err
