"""The suite and the contest as records: from a pytest-benchmark JSON that is known, and from contenders that are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.commands import throughput as command
from bench.measure.throughput import clock, contenders, suite
from bench.measure.throughput import contest as contest_module
from bench.measure.throughput.contenders import NOISING, Contender
from bench.measure.throughput.contest import ContestPlan, contest, sentences
from bench.measure.throughput.problem import Problem
from bench.measure.throughput.suite import SuiteError, SuitePlan, suite_record
from bench.record.kinds import violations
from bench.terminal.usage import UsageError

SECONDS = {"interpreter": 1.0, "arithmetic": 1.0, "memory": 1.0}
CASE = {
    "name": "test_noise_and_q_sample[7x3x5x2-native]",
    "fullname": "bench/measure/throughput/bench_q_sample.py::test_noise_and_q_sample[7x3x5x2-native]",
    "group": "noise + q_sample 7x3x5x2 float32",
    "stats": {"median": 3e-6, "q1": 2e-6, "q3": 5e-6, "rounds": 3, "data": [2e-6, 3e-6, 5.0000001e-6]},
    "extra_info": {
        "contender": "native",
        "shape": "7x3x5x2",
        "threads": 2,
        "items": 210,
        "item": "element",
        "verified": "bits",
    },
}  # fmt: skip


def document(*missing: dict[str, str], after: float = 1.0) -> dict[str, Any]:
    return {
        "benchmarks": [CASE],
        "not_measured": list(missing),
        "compiler_start_seconds": 4.5,
        "calibration": {"before": SECONDS, "after": {**SECONDS, "memory": after}},
    }


def answer(monkeypatch: pytest.MonkeyPatch, status: int, content: Any, lines: str = "") -> None:
    """Let a pytest process have ended like this."""

    def pretend(command: list[str], plan: SuitePlan) -> tuple[int, str]:
        (path,) = (word.partition("=")[2] for word in command if "benchmark-json" in word)
        if content is not None:
            Path(path).write_text(json.dumps(content))
        return status, lines

    monkeypatch.setattr(suite, "_pytest", pretend)


def test_rows_carry_medians_per_item_and_samples_carry_the_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, 0, document())
    record = suite_record(SuitePlan(threads=2))
    (row,) = record.results["rows"]
    assert row["ns_per_item"] == pytest.approx(3e-6 / 210 * 1e9)
    assert (row["module"], row["contender"], row["rounds"]) == ("q_sample", "native", 3)
    assert row["compile_seconds"] is None
    (samples,) = record.samples.values()
    assert samples["values"] == [2e-6, 3e-6, 5e-6]
    assert samples["better"] == "lower"
    assert record.results["calibration"]["warning"] == ""
    assert violations(record) == []


def test_drift_and_failures_are_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"name": "test_a", "module": "a", "outcome": "failed", "reason": "x_t is off"}
    absent = {"name": "test_b", "module": "b", "outcome": "skipped", "reason": "not installed"}
    answer(monkeypatch, 1, document(broken, absent, after=1.5))
    record = suite_record(SuitePlan())
    assert violations(record) == ["test_a: x_t is off"]
    assert "memory +50%" in record.results["calibration"]["warning"]


def test_a_selection_of_nothing_is_an_error_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 5, None, "collecting\n==== 60 deselected in 1.2s ====")
    with pytest.raises(UsageError, match=r"'zzz' selects nothing to measure: 60 deselected"):
        suite_record(SuitePlan(select="zzz"))


def test_a_crash_is_told_with_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, 3, None, "INTERNALERROR> boom")
    with pytest.raises(SuiteError, match=r"(?s)status 3.*boom"):
        suite_record(SuitePlan())


class FakeClock:
    """Moves when somebody works, and a nanosecond at each reading, so that no time is zero."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1e-9
        return self.now


CLOCK = FakeClock()


def slow(milliseconds: int) -> Contender:
    """As the textbook way, in so much time."""

    def build(p: Problem) -> contenders.Call:
        call = NOISING["torch textbook"].build(p)

        def slower(step: int) -> contenders.Pair:
            CLOCK.now += milliseconds * 1e-3
            return call(step)

        return slower

    return Contender(f"slow {milliseconds}", "peer", build, 8)


def broken(p: Problem) -> contenders.Call:
    raise RuntimeError("cannot be built\nfor a long reason")


@pytest.fixture
def entrants(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`native` stands for the textbook way in 1 ms; its opponents need 4 and 7 ms."""
    ours = Contender("native", "own", slow(1).build, 3)
    table = [ours, slow(7), slow(4), Contender("broken", "peer", broken, 8)]
    monkeypatch.setattr(contenders, "NOISING", {c.name: c for c in table})
    monkeypatch.setattr(clock, "synchronizing_clock", CLOCK)
    monkeypatch.setattr(contest_module, "PAUSE_SECONDS", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("entrants")
def test_the_contest_finds_known_ratios_and_files_what_broke() -> None:
    case = contest("5x3x7x2", threads=1, rounds=5, device="cpu", seed=0)
    assert case["fastest_opponent"] == "slow 4"
    assert [case["speed_up"][end] for end in ("low", "estimate", "high")] == pytest.approx([4] * 3)
    assert case["speed_up_each"]["slow 7"]["estimate"] == pytest.approx(7)
    assert case["copy_multiple"]["estimate"] > 1e3  # copies move this clock by its tick alone
    assert case["not_measured"] == [
        {
            "contender": "broken",
            "outcome": "skipped",
            "reason": "RuntimeError: cannot be built",
        }
    ]
    assert {len(values) for values in case["seconds"].values()} == {5}
    json.dumps(case, allow_nan=False)
    (said,) = sentences(case)
    assert "1 thread:" in said
    assert "slow 4" in said


@pytest.mark.usefixtures("entrants")
def test_without_our_candidate_there_is_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Contender("native", "own", broken, 3)
    monkeypatch.setitem(contenders.NOISING, "native", ours)
    case = contest("5x3x7x2", threads=1, rounds=2, device="cpu", seed=0)
    assert "speed_up" not in case
    assert [m["outcome"] for m in case["not_measured"] if m["contender"] == "native"] == ["failed"]
    assert "cannot be built" in sentences(case)[0]


def test_the_record_of_a_contest_holds_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(plan: ContestPlan, threads: int) -> list[dict[str, Any]]:
        return [{"shape": "3x2", "threads": threads, "seconds": {"native": [1.23456789e-5, 2e-5]}}]

    monkeypatch.setattr(contest_module, "_in_process", pretend)
    record = contest_module.contest_record(ContestPlan(shapes=("3x2",), threads=(1, 2), rounds=2))
    assert set(record.samples) == {"3x2, threads 1, native", "3x2, threads 2, native"}
    assert record.samples["3x2, threads 1, native"]["values"] == [1.23457e-5, 2e-5]
    assert record.protocol["pause_seconds"] == contest_module.PAUSE_SECONDS


def test_a_bad_shape_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--shapes", "3xx", "--out", str(tmp_path)]
    with pytest.raises(UsageError, match="256x3x64x64"):
        command.run(parser.parse_args(words))
    assert list(tmp_path.iterdir()) == []
