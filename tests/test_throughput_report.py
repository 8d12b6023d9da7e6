"""The report's section on speed: what it says follows from the intervals, and nothing is invented."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.record import Record, new_record
from bench.report.page.blocks import Figure, Fold, Note, Section, Table
from bench.report.page.figures import svg
from bench.report.throughput import apart, section

pytestmark = pytest.mark.any_torch

UNMEASURED = {"contender": "cuda", "reason": "no CUDA device"}


def ratio(low: float, estimate: float, high: float) -> dict[str, float]:
    return {"low": low, "estimate": estimate, "high": high}


def case(threads: int = 2, device: str = "cpu", **changes: Any) -> dict[str, Any]:
    rows = {"native": 1.5, "torch eager": 9.75, "copy": 0.56}
    return {
        "shape": "256x3x64x64",
        "dtype": "float32",
        "device": device,
        "threads": threads,
        "elements": 3145728,
        "candidate": "native",
        "rows": [{"contender": k, "ns_per_element": v} for k, v in rows.items()],
        "not_measured": [UNMEASURED],
        "fastest_opponent": "torch eager",
        "speed_up": ratio(6.1, 6.5, 6.9),
        "clone_multiple": ratio(2.0, 2.1, 2.2),
        "copy_multiple": ratio(2.6, 2.7, 2.8),
        "copy_fraction": 0.56,
        **changes,
    }


def contest(*cases: Mapping[str, Any], rounds: int = 21) -> Record:
    protocol = {"device": cases[0]["device"], "rounds": rounds}
    results = {"contests": list(cases)}
    return new_record("throughput-contest", protocol=protocol, results=results)


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "group": "noise + q_sample 7x3x5x2 float32",
        "contender": "native",
        "shape": "7x3x5x2",
        "dtype": "float32",
        "threads": 2,
        "item": "element",
        "items": 210,
        "ns_per_item": 1.25,
        "low_quartile": 2e-7,
        "high_quartile": 3e-7,
        "items_per_second": 8e8,
        "bytes_per_element": 12,
        "copy_fraction": 0.5,
        "compile_seconds": None,
        "peak_memory_bytes": 3 * 2**20,
        "verified": "bits",
        **changes,
    }


def suite(*rows: Mapping[str, Any], missing: tuple[dict[str, str], ...] = (), warning: str = "") -> Record:  # fmt: skip
    return new_record(
        "throughput",
        protocol={"device": "cpu", "threads": 2},
        results={
            "rows": list(rows),
            "not_measured": list(missing),
            "calibration": {"warning": warning},
        },
    )


def made(*records: Record) -> Section:
    result = section(records)
    assert result is not None
    return result


def notes(result: Section) -> str:
    return " ".join(block.text for block in result.blocks if isinstance(block, Note))


def test_without_a_record_of_speed_there_is_no_section() -> None:
    assert section([]) is None
    assert section([new_record("study", protocol={})]) is None


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (ratio(6.1, 6.5, 6.9), "6.5 × as fast as the fastest way of other people"),
        (ratio(0.9, 1.2, 1.4), "within noise of the fastest way of other people"),
        (ratio(0.3, 0.4, 0.5), "slower than the fastest way of other people"),
    ],
)
def test_the_headline_says_faster_only_beyond_the_interval(
    interval: dict[str, float], words: str
) -> None:
    (headline,) = made(contest(case(speed_up=interval))).headlines
    assert words in headline
    assert f"{interval['low']:.1f} to {interval['high']:.1f}" in headline


def test_the_headline_takes_most_threads_and_each_device() -> None:
    gpu = {
        "device": "A GPU",
        "build_seconds": 9.5,
        "bits": [{"different_noise": 0, "different_x_t": 0}],
        "bits_equal": True,
        "contests": [case(device="cuda", candidate="cuda")],
    }
    visit = new_record("gpu-visit", protocol={}, results=gpu)
    result = made(contest(case(1, speed_up=ratio(1.1, 1.2, 1.3)), case(2)), visit)
    assert [h.count("6.5 ×") for h in result.headlines] == [1, 1]
    assert "on 2 threads" in result.headlines[0]
    assert "on the GPU" in result.headlines[1]
    assert "not measured here" not in notes(result)
    assert not result.failed


def test_without_a_gpu_record_the_section_says_so() -> None:
    assert "GPU: not measured here" in notes(made(suite(row("test_a[x]"))))


def test_bits_that_differ_on_the_gpu_fail_the_section() -> None:
    results = {
        "device": "A GPU",
        "build_seconds": 9.5,
        "bits": [{"different_noise": 0, "different_x_t": 1}],
        "bits_equal": False,
        "contests": [case(device="cuda")],
    }
    assert made(new_record("gpu-visit", protocol={}, results=results)).failed


def test_what_was_not_measured_is_listed_and_a_wrong_case_fails_the_section() -> None:
    absent = {"name": "test_b", "module": "b", "outcome": "skipped", "reason": "not installed"}
    wrong = {"name": "test_c", "module": "c", "outcome": "failed", "reason": "x_t is off"}
    for missing, failed in (((absent,), False), ((absent, wrong), True)):
        result = made(suite(row("test_a[x]"), missing=missing))
        assert result.failed == failed
        (fold,) = (block for block in result.blocks if isinstance(block, Fold))
        (table,) = fold.blocks
        assert isinstance(table, Table)
        assert [line[2] for line in table.rows] == [m["reason"] for m in missing]


def test_drift_of_the_machine_is_pointed_out() -> None:
    result = made(suite(row("test_a[x]"), warning="the machine's speed changed: memory +50%"))
    assert "memory +50%" in notes(result)


def test_cells_hold_what_the_record_holds() -> None:
    result = made(suite(row("test_a[x]")))
    (table,) = (block for block in result.blocks if isinstance(block, Table))
    cells = dict(zip(table.header, table.rows[0], strict=True))
    texts = {key: getattr(cell, "text", cell) for key, cell in cells.items()}
    assert texts["batch"] == "[7, 3, 5, 2]"
    assert texts["ns/element"] == "1.25"
    assert texts["copy fraction"] == "50%"
    assert texts["peak, MiB"] == "3.0"
    assert texts["compile, s"] == "–"


def test_the_latest_record_of_a_kind_counts() -> None:
    old, new = contest(case(rows=[])), contest(case())
    object.__setattr__(old, "created", "2001-01-01T00:00:00Z")
    assert made(new, old).data["contests"][0]["rows"]
    assert len(made(new, old).data["contests"]) == 1


def test_the_contest_of_most_rounds_counts() -> None:
    short, long = contest(case(rows=[])), contest(case(), rounds=61)
    object.__setattr__(long, "created", "2001-01-01T00:00:00Z")
    other = new_record("estimator", protocol={"rounds": "as many as it takes"}, results={})
    assert made(short, other, long).data["contests"][0]["rows"]


def test_figures_draw() -> None:
    scaling = [row(f"test_scaling[{n}]", items=n, ns_per_item=5 / n) for n in (10, 100, 1000)]
    result = made(contest(case()), suite(*scaling))
    figures = [block for block in result.blocks if isinstance(block, Figure)]
    assert [figure.name for figure in figures] == ["throughput-contest", "throughput-scaling"]
    for figure in figures:
        assert svg(figure).startswith("<svg")
        assert figure.alt


def test_our_own_slower_way_is_marked_and_is_not_what_the_headline_beats() -> None:
    rows = {"native": 1.5, "compiled": 3.0, "torch eager": 9.75, "copy": 0.56}
    told = case(
        rows=[{"contender": k, "ns_per_element": v} for k, v in rows.items()],
        speed_up_each={"torch eager": ratio(6.1, 6.5, 6.9)},
    )
    section = made(contest(told))
    assert "our own `compiled` takes 2.0 × as long" in section.headlines[0]
    table = next(block for block in section.blocks if isinstance(block, Table))
    names = [row[0] for row in table.rows]
    assert names[:3] == ["`native` (ours)", "`compiled` (ours)", "torch eager"]


def test_machines_and_torch_releases_are_told_apart() -> None:
    def at(cpu: str, torch: str) -> Record:
        environment = {"machine": {"cpu": cpu, "cores": 2}, "packages": {"torch": torch}}
        return replace(contest(case()), environment=environment)

    labels = {apart(at(cpu, torch)) for cpu in ("A", "B") for torch in ("2.9.0+cpu", "2.14.1")}
    assert labels == {
        f"{cpu}, 2 cores, {torch}"
        for cpu in ("A", "B")
        for torch in ("torch 2.9.0", "torch 2.14.1")
    }
    assert apart(new_record("study", protocol={})) == ""


def test_a_record_that_another_one_replaces_is_named() -> None:
    thorough, brief = contest(case(), rounds=21), contest(case(), rounds=3)
    assert [name for name, _ in made(thorough, brief).left_out] == [brief.name]


def test_only_our_own_ways_are_called_ours() -> None:
    """Plain torch into memory that is there already is no opponent of the headline, and not ours either."""
    origins = {
        "native": "own",
        "compiled": "own",
        "torch eager": "torch",
        "torch, out given": "torch",
    }
    rows = [{"contender": k, "ns_per_element": 2.0, "origin": v} for k, v in origins.items()]
    rows.append({"contender": "copy", "ns_per_element": 0.5})
    each = {"torch eager": ratio(6.1, 6.5, 6.9)}
    made = section([contest(case(rows=rows, speed_up_each=each))])
    (table,) = [b for b in made.blocks if isinstance(b, Table) and "Contest" in b.caption]
    first = [str(getattr(line[0], "text", line[0])) for line in table.rows]
    assert {name for name in first if "(ours)" in name} == {"`native` (ours)", "`compiled` (ours)"}
