"""Claims: rows that name what exists, verdicts against hand-made seeds, and error rates against simulation."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.__main__ import main
from bench.measure.study.designs import STUDIES
from bench.record.claim import Cell, Claim, Term, less
from bench.record.claims import CLAIMS, claim
from bench.record.record import new_record, save
from bench.record.settling import Found, claims_of, equality, p_value, settle
from bench.record.statistics import detectable, holm, mean_test, power, proportion_interval
from bench.record.study import measure
from bench.terminal.usage import UsageError

pytestmark = pytest.mark.any_torch

CELL = Cell("s", (Term(1.0, "a", "excess"), Term(-1.0, "b", "excess")))


def cells(*columns: Sequence[float], ratio: bool = False) -> list[Found]:
    return [Found(CELL, tuple(column), ratio, "×" if ratio else "1") for column in columns]


def row(name: str, kind: Any = "difference", margin: float | None = None, count: int = 1) -> Claim:
    return Claim(name, "says", "source", kind, (CELL,) * count, margin)


class TestRows:
    def test_there_are_twenty_at_least_and_all_are_sentences_with_a_source(self) -> None:
        assert len(CLAIMS) >= 20
        for entry in CLAIMS.values():
            assert entry.says[0].isupper() or entry.says[0] in "εxv"
            assert entry.source
            assert bool(entry.cells) != bool(entry.needs)
            assert bool(entry.command) == bool(entry.needs)
            assert (entry.kind == "equality") == (entry.margin is not None)

    @pytest.mark.parametrize("entry", CLAIMS.values(), ids=CLAIMS)
    def test_every_cell_names_arms_and_measures_that_its_study_has(self, entry: Claim) -> None:
        for cell in entry.cells:
            design = STUDIES[cell.study].design
            arms = {arm.name for arm in design.arms}
            for term in cell.terms:
                assert term.arm in arms, f"{cell.study} has {sorted(arms)}"
                if term.measure != "departure":
                    measure(term.measure)

    def test_an_unknown_one_is_told_with_the_nearest(self) -> None:
        with pytest.raises(UsageError, match="did you mean jit-512"):
            claim("jit-51")


class TestVerdicts:
    def test_a_difference_in_every_cell_holds_and_a_reversed_one_fails(self) -> None:
        up, down, wide = (
            [1.0, 1.1, 0.9, 1.05, 0.95],
            [-1.0, -1.1, -0.9, -1.05, -0.95],
            [3.0, -3, 1, 0, 1],
        )
        found = {
            "up": cells(up, up),
            "down": cells(up, down),
            "wide": cells(up, wide),
            "few": cells(up[:2]),
        }
        rows = settle([row(name, count=2) for name in found], found)
        verdicts = [entry["verdict"] for entry in rows]
        assert verdicts == ["holds", "fails", "within noise", "too few seeds"]

    def test_the_p_value_of_one_cell_is_that_of_student(self) -> None:
        values = [0.3, 0.8, 0.1, 0.9, 0.4]
        expected = stats.ttest_1samp(values, 0).pvalue
        assert p_value(cells(values)) == pytest.approx(expected)
        assert mean_test(values) == pytest.approx(expected)

    def test_several_cells_take_the_largest_where_all_agree_and_bonferroni_where_not(self) -> None:
        strong, weak = [1.0, 1.1, 0.9], [0.5, 1.5, 0.1]
        assert p_value(cells(strong, weak)) == pytest.approx(stats.ttest_1samp(weak, 0).pvalue)
        against = [-1.0, -1.2, -0.9]
        expected = 3 * stats.ttest_1samp(against, 0).pvalue
        assert p_value(cells(strong, weak, against)) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("values", "verdict"),
        [
            ([0.01, -0.01, 0.02, -0.02, 0.0], "holds"),
            ([0.5, 0.52, 0.48, 0.51, 0.49], "fails"),
            ([0.5, -0.5, 0.2, -0.2, 0.1], "within noise"),
        ],
    )
    def test_an_equality_needs_its_margin(self, values: list[float], verdict: str) -> None:
        entry = row("e", "equality", margin=0.1)
        assert equality(cells(values), entry) == verdict
        assert equality(cells(values, ratio=True), replace(entry, margin=math.exp(0.1))) == verdict

    def test_the_edge_of_an_equality_is_that_of_two_one_sided_tests(self) -> None:
        values = np.array([0.02, -0.01, 0.03, 0.0, 0.01])
        half = stats.t.ppf(0.95, 4) * values.std(ddof=1) / math.sqrt(5)
        edge = values.mean() + half
        for margin, verdict in ((edge * 1.0001, "holds"), (edge * 0.9999, "within noise")):
            assert equality(cells(values), row("e", "equality", margin=margin)) == verdict

    def test_the_family_is_all_differences_that_were_measured(self) -> None:
        values = [1.0, 1.6, 0.7]
        plain = stats.ttest_1samp(values, 0).pvalue
        rows = [row("a"), row("b"), row("e", "equality", 0.1), row("missing")]
        found = {"a": cells(values), "b": cells(values), "e": cells(values), "missing": None}
        told = settle(rows, found)
        assert f"p = {plain:.2g}, {2 * plain:.2g} adjusted for 2" in told[0]["reason"]
        assert told[3]["verdict"] == "not measured (no record)"

    def test_what_diverged_is_told_with_its_step(self) -> None:
        runs = [
            {
                "arm": arm,
                "seed": seed,
                "diverged_at": 812 if arm == "b" and seed == 2 else None,
                "reason": "diverged at step 812" if arm == "b" and seed == 2 else "",
                "final": {"excess": 1.0 + seed + 5 * (arm == "a")},
            }
            for arm in "ab"
            for seed in (1, 2, 3, 4)
        ]
        runs[5]["final"] = None
        results = {"runs": runs, "arms": [{"name": "a"}, {"name": "b"}], "predictions": {}}
        from bench.record import settling

        entry = Claim("x", "says", "source", "difference", less("s", "excess", "b", "a"))
        found = settling.cells_of(entry, {"s": results})
        assert found is not None
        (told,) = settle([entry], {"x": found})
        assert told["seeds"] == 3
        assert "b, seed 2: diverged at step 812" in told["reason"]

    def test_no_study_no_claims(self) -> None:
        assert claims_of([]) == []
        assert claims_of([new_record("study", protocol={"seeds": [1]})]) == []


class TestPower:
    @pytest.mark.parametrize("effect", [0.5, 1.0, 3.0])
    def test_by_simulation(self, effect: float) -> None:
        draws = np.random.default_rng(1).normal(effect, 1, (4000, 5))
        hits = int((stats.ttest_1samp(draws, 0, axis=1).pvalue <= 0.05).sum())
        interval = proportion_interval(hits, 4000, level=0.999)
        assert interval.low <= power(effect, 5, level=0.05) <= interval.high  # type: ignore[operator]

    def test_what_can_be_found(self) -> None:
        found = detectable(5, level=0.05 / 14)
        assert power(found, 5, level=0.05 / 14) == pytest.approx(0.8, abs=1e-6)
        assert detectable(1, level=0.05) == math.inf
        assert power(0.0, 5, level=0.05) == pytest.approx(0.05)


STUDIES_SIMULATED, FAMILY, SEEDS = 2000, 10, 5


def simulated(effects: Sequence[float], rng: np.random.Generator) -> list[str]:
    """Verdicts of one report of differences whose true means are `effects`, in standard deviations, with correlated seeds."""
    shared = rng.normal(0, 1, SEEDS)
    found = {}
    for index, effect in enumerate(effects):
        noise = math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.normal(0, 1, SEEDS)
        found[str(index)] = cells(effect + noise)
    rows = [row(name) for name in found]
    return [entry["verdict"] for entry in settle(rows, found)]


def test_two_thousand_studies_without_effect() -> None:
    """Familywise: some claim of a report is called settled; at most 5 %, and a planted effect is found as often as stated."""
    rng = np.random.default_rng(11)
    wrong = found = 0
    effect = detectable(SEEDS, level=0.05 / FAMILY)
    for _ in range(STUDIES_SIMULATED):
        wrong += any(v in ("holds", "fails") for v in simulated([0.0] * FAMILY, rng))
    for _ in range(STUDIES_SIMULATED):
        found += simulated([effect], rng)[0] == "holds"
    errors = proportion_interval(wrong, STUDIES_SIMULATED)
    assert errors.low is not None
    assert errors.low <= 0.05
    detected = proportion_interval(found, STUDIES_SIMULATED, level=0.999)
    stated = power(effect, SEEDS, level=0.05)
    assert detected.low <= stated <= detected.high  # type: ignore[operator]


def test_cells_without_effect_err_no_more_often_than_one() -> None:
    rng = np.random.default_rng(12)
    wrong = 0
    for _ in range(STUDIES_SIMULATED):
        wrong += p_value(cells(*rng.normal(0, 1, (3, SEEDS)))) <= 0.05
    interval = proportion_interval(wrong, STUDIES_SIMULATED)
    assert interval.low is not None
    assert interval.low <= 0.05


def test_without_holm_the_simulation_would_see_it() -> None:
    """The test above has teeth: unadjusted, ten claims err far more often than 5 %."""
    rng = np.random.default_rng(13)
    draws = rng.normal(0, 1, (STUDIES_SIMULATED, FAMILY, SEEDS))
    p = stats.ttest_1samp(draws, 0, axis=2).pvalue
    assert (p.min(axis=1) <= 0.05).mean() > 0.3
    assert np.mean([min(holm(list(line))) <= 0.05 for line in p]) < 0.065


class TestCommand:
    def test_the_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["claims"]) == 0
        text = capsys.readouterr().out
        assert all(name in text for name in CLAIMS)
        assert "not measured (needs a GPU)" in text
        assert re.search(r"\d+ claims, 0 settled", text)

    def test_run_refuses_what_needs_more(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", "--claims", "k-diff", "--out", str(tmp_path)]) == 2
        assert "needs a GPU" in capsys.readouterr().err
        assert main(["run", "--claims", "jit-5", "--out", str(tmp_path)]) == 2
        assert "did you mean" in capsys.readouterr().err

    def test_the_table_in_the_documentation_is_this_one(self) -> None:
        from bench.measure.study.listing import table

        page = (Path(__file__).parents[1] / "docs" / "claims.md").read_text(encoding="utf-8")
        assert table() in page


class TestExact:
    """Claims that a closed form decides."""

    STUDY = new_record(
        "study",
        protocol={"study": "none of these", "seeds": [1]},
        results={"arms": [], "runs": []},
    )

    def row(self, *prices: tuple[int, float, float]) -> dict[str, Any]:
        rows = [{"T": T, "identity": one, "beta": two} for T, one, two in prices]
        bound = new_record("bound", protocol={}, results={"prices": rows})
        return next(r for r in claims_of([self.STUDY, bound]) if r["id"] == "identity-variance")

    def test_the_largest_T_decides(self) -> None:
        found = self.row((10, 1.0, 2.0), (1000, 7.5, 2.25), (100, 0.0, 1.0))
        assert (found["verdict"], found["measured"], found["unit"]) == ("fails", 5.25, "bits/dim")
        assert "T = 1000" in found["reason"]

    def test_it_holds_where_nothing_is_lost(self) -> None:
        assert self.row((10, 2.0, 2.0))["verdict"] == "holds"

    def test_without_a_bound_it_is_not_measured(self) -> None:
        (found,) = [r for r in claims_of([self.STUDY]) if r["id"] == "identity-variance"]
        assert found["verdict"].startswith("not measured (needs")

    def test_the_command_settles_it_as_the_report_does(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prices = [{"T": 1000, "identity": 7.5, "beta": 2.25}]
        save(new_record("bound", protocol={}, results={"prices": prices}), tmp_path)
        (tmp_path / "notes.json").write_text("{}")  # beside a record, and none itself
        assert main(["claims", str(tmp_path)]) == 0
        said = capsys.readouterr()
        assert "fails 5.25" in next(
            line for line in said.out.splitlines() if line.startswith("identity-variance")
        )
        assert "left out: notes.json" in said.err
