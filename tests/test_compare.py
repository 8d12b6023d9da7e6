"""What is called better or worse must be beyond noise; what is not comparable must be refused."""

import json

import numpy as np
import pytest

from bench.__main__ import main
from bench.record import Record, new_record, save, series
from bench.record.comparability import NotComparableError, is_time
from bench.record.comparison import compare, drift_within


def _times(factor: float, seed: int, n: int = 29) -> list[float]:
    return (factor * np.random.default_rng(seed).lognormal(mean=2, sigma=0.05, size=n)).tolist()


def _record(samples, **changes) -> Record:
    content = {"protocol": {"shape": "5x3"}, "samples": samples}
    return new_record("throughput", **{**content, **changes})


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
    assert "machine itself varied" in comparison.changes[0].remark


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
    assert [verdict for _, verdict in comparison.laws] == ["worse", "better", "worse"]
    assert comparison.laws[0][0] == "I0 · float64: pass → fail"
    assert not compare(_laws("fail"), _laws("pass")).worse


def test_a_law_more_leaves_the_others_comparable():
    comparison = compare(_laws("pass"), _laws("fail", "pass"))
    assert comparison.worse
    assert comparison.missing == ("I1 · float64: only in the new record",)


def _other_machine(record: Record) -> Record:
    machine = {**record.environment["machine"], "cpu": "another"}
    fields = {**vars(record), "environment": {**record.environment, "machine": machine}}
    return Record(**fields)


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
    new = Record(**{**vars(old), "environment": environment})
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
