"""What is called better or worse must be beyond noise; what is not comparable must be refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.__main__ import main
from bench.record import Record, load, new_record, save, series
from bench.record.comparability import NotComparableError, is_time
from bench.record.comparison import compare, drift_within
from bench.record.releases import by_torch
from bench.terminal.usage import UsageError

pytestmark = pytest.mark.any_torch

RECORDS = Path(__file__).parents[1] / "reports" / "records"
QUIET = ("within noise", "not tested")


def _times(factor: float, seed: int, n: int = 29) -> list[float]:
    return (factor * np.random.default_rng(seed).lognormal(mean=2, sigma=0.05, size=n)).tolist()


def _record(samples, results=None, **changes) -> Record:
    content = {"protocol": {"shape": "5x3"}, "samples": samples}
    results = {"not_measured": [], **(results or {})}
    return new_record("throughput", **{**content, "results": results, **changes})


def _timing(factor: float, seed: int, drift: float = 1.0, **changes) -> Record:
    samples = {
        "eager": series(_times(factor, seed), unit="ns/element", better="lower"),
        "rate": series(_times(1 / factor, seed + 1), unit="items/s", better="higher"),
    }
    calibration = {"before": {"memory": drift}, "after": {"memory": drift}}
    return _record(samples, results={"calibration": calibration}, **changes)


def _verdicts(comparison):
    return {change.name: change.verdict for change in comparison.changes}


def test_equal_distributions_are_within_noise():
    comparison = compare(_timing(1.0, 0), _timing(1.0, 10))
    assert _verdicts(comparison) == {"eager": "within noise", "rate": "within noise"}
    assert not comparison.worse


def test_slower_is_worse_in_both_directions_of_better():
    comparison = compare(_timing(1.0, 0), _timing(1.3, 10))
    assert _verdicts(comparison) == {"eager": "worse", "rate": "worse"}
    assert comparison.worse


def test_faster_is_better():
    comparison = compare(_timing(1.3, 0), _timing(1.0, 10))
    assert _verdicts(comparison) == {"eager": "better", "rate": "better"}
    change = comparison.changes[0]
    assert change.effect.low < 1 / 1.3 < change.effect.high


def test_a_slower_machine_is_no_slower_program():
    comparison = compare(_timing(1.0, 0), _timing(1.3, 10, drift=1.35))
    assert _verdicts(comparison) == {"eager": "within noise", "rate": "within noise"}
    assert "runs on this machine differ" in comparison.changes[0].remark


def test_a_run_that_drifts_supports_no_small_change():
    """Rounds that slow down by a fifth within the run: a tenth between two runs means nothing."""
    drifting = np.linspace(1.0, 1.2, 40)

    def run(factor):
        return _record({"eager": series((factor * drifting).tolist(), unit="s", better="lower")})

    assert _verdicts(compare(run(1.0), run(1.1))) == {"eager": "within noise"}
    assert _verdicts(compare(run(1.0), run(1.5))) == {"eager": "worse"}


def test_drift_within_by_hand():
    assert drift_within([1, 1, 2, 2, 1, 1, 1, 1, 1, 1]) == 2.0
    assert drift_within([1.0, 9.0]) == 1.0


def test_a_slower_machine_does_not_hide_more_than_its_own_change():
    comparison = compare(_timing(1.0, 0), _timing(2.0, 10, drift=1.2))
    assert _verdicts(comparison) == {"eager": "worse", "rate": "worse"}


def test_p_values_pay_for_the_number_of_series():
    """Holm: the smallest of n p-values is multiplied by n, so that some false alarm stays rare."""

    def record(seed, names, factor):
        samples = {"moved": series(_times(factor, seed), unit="bits", better="lower")}
        quiet = {n: series(_times(1, seed + 1), unit="bits", better="lower") for n in names}
        return _record({**samples, **quiet})

    alone = compare(record(0, "", 1.0), record(10, "", 1.0425)).changes[0]
    names = "abcdefghijklmno"
    among = compare(record(0, names, 1.0), record(10, names, 1.0425)).changes[0]
    assert among.p == pytest.approx(16 * alone.p, rel=1e-9)
    assert alone.effect.excludes(1.0)
    assert (alone.verdict, among.verdict) == ("worse", "within noise")


def test_pairs_see_what_the_scatter_between_seeds_hides():
    base = np.array([2.0, 3.0, 4.0, 5.0])
    small = base + np.array([0.010, 0.011, 0.009, 0.012])

    def study(values, pairs):
        shape = series(values.tolist(), unit="bits/dim", better="lower", pairs=pairs)
        return _record({"ε": shape})

    seeds = [11, 13, 17, 19]
    assert _verdicts(compare(study(base, seeds), study(small, seeds))) == {"ε": "worse"}
    others = [12, 14, 16, 18]
    assert _verdicts(compare(study(base, seeds), study(small, others))) == {"ε": "within noise"}
    shuffled = compare(study(base, seeds), study(small[::-1], seeds[::-1]))
    assert shuffled.changes[0].verdict == "worse"
    assert shuffled.changes[0].effect.estimate == pytest.approx(0.0105)


def test_negative_values_are_compared_by_difference():
    rng = np.random.default_rng(5)

    def density(shift, unit="nats"):
        values = (rng.normal(size=37) + shift).tolist()
        return _record({"log p": series(values, unit=unit, better="higher")})

    change = compare(density(-9.0), density(-4.0)).changes[0]
    assert (change.relation, change.verdict) == ("difference", "better")
    assert change.effect.low < 5 < change.effect.high


def test_one_value_is_not_tested():
    one = _record({"steps/s": series([3.0], unit="steps/s", better="higher")})
    change = compare(one, one).changes[0]
    assert (change.verdict, change.p) == ("not tested", None)


def test_no_direction_no_judgement():
    def wide(factor, seed):
        values = _times(factor, seed)
        return _record({"norm": series(values, unit="1", better="neither")})

    comparison = compare(wide(1.0, 0), wide(2.0, 1))
    assert _verdicts(comparison) == {"norm": "changed"}
    assert not comparison.worse


def test_what_vanished_is_said():
    old = _record({n: series([1, 2], unit="B", better="lower") for n in ("kept", "gone")})
    new = _record({n: series([1, 2], unit="B", better="lower") for n in ("kept", "come")})
    assert compare(old, new).missing == (
        "gone: only in the old record",
        "come: only in the new record",
    )


def test_curves_beside_series_are_left_alone():
    old = _record({"a": series([1, 2], unit="B", better="lower"), "curve": [[1, 2], [3, 4]]})
    assert [change.name for change in compare(old, old).changes] == ["a"]


def _laws(*statuses):
    laws = [{"law": f"I{i}", "status": s, "dtype": "float64"} for i, s in enumerate(statuses)]
    protocol = {"laws": [row["law"] for row in laws]}
    return new_record("verify", protocol=protocol, results={"laws": laws})


def test_laws_do_not_scatter():
    comparison = compare(
        _laws("pass", "fail", "pass", "pass"), _laws("fail", "pass", "pass", "error")
    )
    assert [fact.verdict for fact in comparison.facts] == ["worse", "better", "worse"]
    assert str(comparison.facts[0]) == "I0 · float64: pass → fail"
    assert not compare(_laws("fail"), _laws("pass")).worse


def test_a_law_more_leaves_the_others_comparable():
    comparison = compare(_laws("pass"), _laws("fail", "pass"))
    assert comparison.worse
    assert comparison.missing == ("I1 · float64: only in the new record",)


def _other_machine(record: Record) -> Record:
    machine = {**record.environment["machine"], "cpu": "another"}
    return replace(record, environment={**record.environment, "machine": machine})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (_timing(1, 0, protocol={"shape": "7x3"}), r"protocols differ in shape \(5x3 → 7x3\)"),
        (_timing(1, 0, data={"name": "mnist", "sha256": "1"}), "data differ"),
        (new_record("study", protocol={"shape": "5x3"}), "'throughput', the other 'study'"),
        (_other_machine(_timing(1, 0)), "times from different machines"),
        (_record({}), "no series in common"),
    ],
)
def test_not_comparable(other, message):
    with pytest.raises(NotComparableError, match=message):
        compare(_timing(1, 0), other)


def test_quality_may_be_compared_across_machines():
    old = _record({"fd": series([1.0, 2.0], unit="1", better="lower")})
    assert compare(old, _other_machine(old)).changes


def test_the_command_itself_is_not_part_of_the_protocol():
    old = _timing(1, 0, protocol={"shape": "5x3", "command": "a"})
    assert compare(old, _timing(1, 1, protocol={"shape": "5x3", "command": "b"})).changes


def test_conditions_name_what_differs():
    old = _timing(1, 0)
    environment = {**old.environment, "packages": {**old.environment["packages"], "torch": "9.9"}}
    new = replace(old, environment=environment)
    assert any(line.startswith("torch (") for line in compare(old, new).conditions)


@pytest.mark.parametrize("unit", ["s", "ns/element", "items/s", "ms", "µs"])
def test_units_of_time(unit):
    assert is_time(unit)


@pytest.mark.parametrize("unit", ["bits/dim", "bytes/element", "1", "GiB", "steps", "nats"])
def test_other_units(unit):
    assert not is_time(unit)


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.5, 1), (0.7, 0)])
def test_command(tmp_path, capsys, factor, status):
    old, new = save(_timing(1.0, 0), tmp_path), save(_timing(factor, 10), tmp_path)
    out = tmp_path / "comparison.json"
    assert main(["compare", str(old), str(new), "--json", str(out)]) == status
    assert json.loads(out.read_text())["worse"] is bool(status)
    shown = capsys.readouterr().out
    assert "eager (ns/element)" in shown
    assert "adjusted for the number of tests" in shown


def test_command_refuses_in_one_line(tmp_path, capsys):
    old = save(_timing(1.0, 0), tmp_path)
    new = save(new_record("study", protocol={}), tmp_path)
    assert main(["compare", str(old), str(new)]) == 2
    error = capsys.readouterr().err
    assert "not comparable" in error
    assert error.count("\n") == 1


# ---- what two records have in common -----------------------------------------------------


def test_more_rounds_or_another_selection_do_not_forbid_the_rest():
    def suite(**protocol):
        return _timing(1, 0, protocol={"device": "cpu", **protocol})

    comparison = compare(suite(rounds=21, select="a"), suite(rounds=61, select="b"))
    assert len(comparison.changes) == 2
    assert "rounds (21 → 61)" in comparison.conditions
    with pytest.raises(NotComparableError, match="device"):
        compare(suite(), replace(suite(), protocol={"device": "cuda"}))


def test_bits_are_counted():
    old = _record({n: series([1.0, 2.0], unit="1", better="lower") for n in "ab"})
    new = _record(
        {n: series([1.0, v], unit="1", better="lower") for n, v in (("a", 2.0), ("b", 2.1))}
    )
    assert compare(old, new).bits_equal == (1, 2)


# ---- laws ----------------------------------------------------------------------------------


def _verified(*rows, statement="q = 1", version="1.0", against=("lib",)):
    laws = [{"implementation": "lib", "dtype": "float64", "error": None, **row} for row in rows]
    results = {
        "laws": laws,
        "failed": [],
        "statements": [{"law": "I1", "statement": statement}],
        "implementations": [{"name": name, "version": version} for name in against],
    }
    return new_record(
        "verify", protocol={"laws": ["I1"], "against": list(against)}, results=results
    )


def _row(classification="pass", error=None, tolerance=1.0, law="I1"):
    status = "pass" if classification == "pass" else "fail"
    named = None if classification == "pass" else classification
    return {
        "law": law,
        "status": status,
        "classification": named,
        "error": error,
        "tolerance": tolerance,
    }


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("precision", "bug", "worse"),
        ("convention", "bug", "worse"),
        ("bug", "precision", "better"),
        ("bug", "pass", "better"),
        ("pass", "precision", "worse"),
    ],
)
def test_the_class_of_a_law_counts(old, new, verdict):
    comparison = compare(_verified(_row(old)), _verified(_row(new)))
    assert [fact.verdict for fact in comparison.facts] == [verdict]
    assert comparison.worse is (verdict == "worse")


def test_an_error_that_grew_counts_where_the_law_fails():
    grew = compare(_verified(_row("precision", 1e-3)), _verified(_row("precision", 5e-3)))
    assert [fact.verdict for fact in grew.facts] == ["worse"]
    assert not compare(
        _verified(_row("precision", 1e-3)), _verified(_row("precision", 1.5e-3))
    ).facts
    near = compare(_verified(_row("pass", 0.01)), _verified(_row("pass", 0.5)))
    assert [(f.verdict, f.remark) for f in near.facts] == [("changed", "still holds")]
    assert not compare(_verified(_row("pass", 1e-16)), _verified(_row("pass", 1e-12))).facts


def test_a_check_that_vanished_is_worse():
    kept = _row(law="I2")
    gone = compare(_verified(_row("pass"), kept), _verified(kept))
    assert [(f.verdict, f.remark) for f in gone.facts] == [("worse", "a check that vanished")]
    unoffered = {**_row("pass"), "status": "not-offered"}
    assert compare(_verified(_row("pass")), _verified(unoffered)).worse


def test_a_library_that_was_not_asked_for_did_not_vanish():
    other = replace(
        _verified(against=("other",)),
        results={
            **_verified().results,
            "implementations": [{"name": "other", "version": "1"}],
            "laws": [{**_row("pass"), "implementation": "other", "dtype": "float64"}],
        },
    )
    both = _verified(_row("pass"))
    both = replace(
        both, results={**both.results, "laws": [*both.results["laws"], *other.results["laws"]]}
    )
    comparison = compare(both, other)
    assert not comparison.worse
    assert comparison.missing == ("lib · I1 · float64: only in the old record",)


def test_a_law_that_changed_is_not_a_library_that_changed():
    comparison = compare(_verified(_row("pass")), _verified(_row("bug"), statement="q = 2"))
    assert [fact.verdict for fact in comparison.facts] == ["changed"]
    assert "the law itself reads differently" in comparison.facts[0].remark
    assert not comparison.worse


def test_a_planted_change_of_class_in_a_real_record_is_found():
    old = load(next(iter(sorted(RECORDS.glob("*-verify-*.json")))))
    rows = [dict(row) for row in old.results["laws"]]
    victim = next(
        row for row in rows if row["implementation"] != "ddpm_ref" and row["status"] == "pass"
    )
    victim |= {"status": "fail", "classification": "bug"}
    comparison = compare(old, replace(old, results={**old.results, "laws": rows}))
    assert [(f.old, f.new, f.verdict) for f in comparison.facts] == [("pass", "bug", "worse")]
    assert not compare(old, old).facts


# ---- every kind ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem[11:])
def test_every_committed_record_compares_with_itself_without_an_alarm(path, fewer_resamples):
    record = load(path)
    comparison = compare(record, record)
    assert not [verdict for verdict in comparison.verdicts if verdict not in QUIET]
    assert comparison.missing == ()


def test_what_newly_went_wrong_is_worse_whatever_the_kind():
    def ran(status):
        part = {"part": "study", "status": status, "seconds": 1.0, "reason": ""}
        return new_record("run", protocol={}, results={"parts": [part]})

    assert compare(ran("done"), ran("failed")).worse
    assert not compare(ran("failed"), ran("done")).worse


def test_results_of_another_shape_are_refused_in_words():
    odd = new_record("run", protocol={}, results={"parts": 3})
    with pytest.raises(UsageError, match="does not have the results of its kind"):
        compare(odd, odd)


# ---- times: null pairs and a planted slowdown ---------------------------------------------


def _contest() -> Record:
    """The committed contest with most rounds."""
    found = [load(path) for path in RECORDS.glob("*-throughput-contest-*.json")]
    return max(found, key=lambda record: record.protocol["rounds"])


def _again(
    record: Record, rng: np.random.Generator, slower: dict[str, float] | None = None
) -> Record:
    """The record as another process would have measured it.

    Rounds in blocks of eight, drawn again in one order for all series, because they take turns; each process has its own
    level (2 %), and the machine another one for all (3 %), which drifts by 4 % within the run.
    """
    common = rng.normal(0, 0.03)
    samples = {}
    count = len(next(iter(record.samples.values()))["values"])
    starts = rng.integers(0, count - 7, size=-(-count // 8))
    order = np.concatenate([np.arange(start, start + 8) for start in starts])[:count]
    drift = np.linspace(0, rng.normal(0, 0.04), count)
    for name, one in record.samples.items():
        own = rng.normal(0, 0.02)
        factor = np.exp(common + own + drift) * (slower or {}).get(name, 1.0)
        samples[name] = {**one, "values": (np.array(one["values"])[order] * factor).tolist()}
    return replace(record, samples=samples)


CASE = "256x3x64x64, threads 2"


def _short(record: Record) -> Record:
    """One case of the contest; all of them take a minute."""
    chosen = {name: s for name, s in record.samples.items() if name.startswith(CASE)}
    return replace(record, samples=chosen)


@pytest.fixture
def fewer_resamples(monkeypatch):
    monkeypatch.setattr("bench.record.statistics._RESAMPLES", 999)


def _loud(comparison) -> dict[str, str]:
    return {c.name: c.verdict for c in comparison.changes if c.verdict not in QUIET}


def test_null_pairs_raise_hardly_an_alarm(fewer_resamples):
    """50 pairs of one program: at most 4 alarms over all of their series."""
    record, rng = _short(_contest()), np.random.default_rng(20261128)
    pairs = [compare(_again(record, rng), _again(record, rng)) for _ in range(50)]
    assert sum(len(_loud(comparison)) for comparison in pairs) <= 4


def test_null_pairs_of_several_processes_raise_hardly_an_alarm():
    record, rng = _short(_contest()), np.random.default_rng(20261129)

    def side():
        return [_again(record, rng) for _ in range(5)]

    assert sum(len(_loud(compare(side(), side()))) for _ in range(50)) <= 4


def test_a_kernel_that_became_a_fifth_slower_is_found():
    """Five processes a side, in rotation; planted in one series, and no other is blamed."""
    record, rng = _short(_contest()), np.random.default_rng(7)
    victim = f"{CASE}, native"
    found = 0
    for _ in range(10):
        old = [_again(record, rng) for _ in range(5)]
        comparison = compare(old, [_again(record, rng, {victim: 1.2}) for _ in range(5)])
        loud = _loud(comparison)
        assert set(loud) <= {victim}
        found += loud == {victim: "worse"}
        change = next(c for c in comparison.changes if c.name == victim)
        assert change.smallest is not None
        assert change.smallest > 1
    assert found >= 8


def test_single_records_see_a_half(fewer_resamples):
    """One process a side: what two processes differ by themselves must be exceeded."""
    record, rng = _short(_contest()), np.random.default_rng(9)
    victim = f"{CASE}, native"
    for _ in range(5):
        comparison = compare(_again(record, rng), _again(record, rng, {victim: 1.5}))
        assert _loud(comparison)[victim] == "worse"
        assert "worse" not in (v for n, v in _loud(comparison).items() if n != victim)


def test_a_fifth_is_visible_in_a_steady_case_of_the_suite():
    (path,) = [p for p in RECORDS.glob("*-throughput-*.json") if "contest" not in p.name]
    record = load(path)
    apart = [c for c in compare(record, record).changes if "q_sample" in c.name and c.smallest]
    victim = min(apart, key=lambda change: change.smallest).name
    one = record.samples[victim]
    slower = {**one, "values": [1.2 * value for value in one["values"]]}
    comparison = compare(record, replace(record, samples={**record.samples, victim: slower}))
    assert _loud(comparison) == {victim: "worse"}


def test_what_all_ways_share_is_the_machine_and_is_said():
    base = {f"c, {k}": np.full(20, float(k + 1)) for k in range(4)}
    drift = np.linspace(1.0, 1.5, 20)

    def run(factor, drifts):
        samples = {
            name: series((v * factor * (drift if drifts else 1)).tolist(), unit="s", better="lower")
            for name, v in base.items()
        }
        return new_record(
            "throughput-contest",
            protocol={"turn_seconds": 1},
            samples=samples,
            results={"contests": []},
        )

    comparison = compare(run(1, True), run(2, False))
    assert all(c.effect.estimate == pytest.approx(1) for c in comparison.changes)
    assert not comparison.worse
    assert any("together, copies included: ×1.6" in text for text in comparison.conditions)


def test_interval_and_p_are_adjusted_alike():
    """At every place of Holm's sequence p < 5 % exactly where the interval of its level excludes no change."""
    rng = np.random.default_rng(3)
    seeds = list(range(9))

    def study(shift):
        samples = {
            f"s{k}": series(
                (rng.normal(size=9) + shift * k).tolist(), unit="1", better="lower", pairs=seeds
            )
            for k in range(12)
        }
        return _record(samples)

    comparison = compare(study(0.0), study(0.25))
    ranked = sorted(comparison.changes, key=lambda c: (c.p, -c.effect.level))
    levels = [change.effect.level for change in ranked]
    assert levels == pytest.approx([1 - 0.05 / (12 - k) for k in range(12)])
    agreed = [(c.p < 0.05) == c.effect.excludes(0.0) for c in ranked]
    first = next((i for i, c in enumerate(ranked) if c.p >= 0.05), 12)
    assert all(agreed[: first + 1])
    assert 0 < first < 12


# ---- the command: folders, pages, foreign files --------------------------------------------


def test_folders_are_paired_by_what_they_measure(tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, factor, seed in ((old, 1.0, 0), (new, 1.5, 10)):
        save(_timing(factor, seed), folder)
        save(_laws("pass"), folder)
    save(new_record("bound", protocol={}), old)
    (new / "broken.json").write_text("{")
    pages = {name: tmp_path / f"page.{name}" for name in ("json", "html", "markdown")}
    options = [word for name, path in pages.items() for word in (f"--{name}", str(path))]
    assert main(["compare", str(old), str(new), *options]) == 1
    told = capsys.readouterr().out
    assert "only the old side has it" in told
    assert "broken.json" in told
    content = json.loads(pages["json"].read_text())
    assert {one["kind"] for one in content["comparisons"]} == {"throughput", "verify"}
    for name in ("html", "markdown"):
        text = pages[name].read_text()
        assert "What changed?" in text
        assert "eager" in text
        assert "broken.json" in text


def test_sides_without_anything_in_common_are_refused(tmp_path, capsys):
    for name, kind in (("a", "bound"), ("b", "noise")):
        save(new_record(kind, protocol={}), tmp_path / name)
        save(new_record(kind, protocol={"x": 1}), tmp_path / name)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "no measurement in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"machine_info": {}, "benchmarks": []}, "written by pytest-benchmark"),
        ({"schema": "ddpm-bench.report/1"}, "not a record but 'ddpm-bench.report/1'"),
        ({"schema": "ddpm-bench.record/9"}, "read it with the version that wrote it"),
        ({"results": []}, "was not written by ddpm-bench"),
    ],
)
def test_what_is_said_of_another_programs_file_is_true(tmp_path, capsys, content, message):
    file = tmp_path / "foreign.json"
    file.write_text(json.dumps(content))
    assert main(["compare", str(file), str(file)]) == 2
    assert message in capsys.readouterr().err


# ---- torch releases ------------------------------------------------------------------------


def _under(record: Record, torch: str, created: str = "2026-01-01T00:00:00Z") -> Record:
    packages = {**record.environment["packages"], "torch": torch}
    return replace(
        record, environment={**record.environment, "packages": packages}, created=created
    )


def test_releases_are_columns_and_the_oldest_is_the_base(tmp_path, capsys):
    folder, page = tmp_path / "records", tmp_path / "page.html"
    for torch, factor in (("2.10.0", 1.0), ("2.9.1+cpu", 1.0), ("2.14.1", 1.6)):
        save(_under(_timing(factor, 0), torch), folder)
        save(_under(_laws("pass", "fail" if torch == "2.14.1" else "pass"), torch), folder)
        save(_under(_study_like(0.0 if torch != "2.14.1" else 1e-9), torch), folder)
    save(_under(new_record("bound", protocol={}), "2.9.1"), folder)
    assert main(["compare", "--by", "torch", str(folder), "--html", str(page)]) == 1
    told = capsys.readouterr().out
    assert "verify, torch 2.9.1 → torch 2.14.1:" in told
    assert "no other release has this measurement" in told
    text = page.read_text()
    assert text.index("torch 2.9.1") < text.index("torch 2.10.0") < text.index("torch 2.14.1")
    assert "1 of 1 series equal to the bit" in text
    assert "0 of 1 series equal to the bit" in text
    assert "I1 · float64" in text


def _study_like(shift):
    samples = {"fd": series([1.0 + shift, 2.0], unit="1", better="lower", pairs=[1, 2])}
    return new_record("study", protocol={"arms": []}, samples=samples, results={"runs": []})


def test_rotating_rounds_of_a_release_are_its_processes():
    record, rng = _short(_contest()), np.random.default_rng(5)
    victim = f"{CASE}, native"
    rounds = []
    for k in range(6):
        for torch, factor in (("2.9.1", 1.0), ("2.14.1", 1.3)):
            made = _again(record, rng, {victim: factor})
            rounds.append(_under(made, torch, f"2026-01-01T00:{k:02d}:00Z"))
    (measurement,) = by_torch(rounds).measurements
    (comparison,) = measurement.comparisons.values()
    assert [name for name, verdict in _loud(comparison).items() if verdict == "worse"] == [victim]


def test_one_release_is_nothing_to_compare():
    with pytest.raises(UsageError, match="every record is of torch"):
        by_torch([_timing(1.0, 0)])
