"""`pytest --benchmark`, run literally, in a small project that has the repository's own plugin.

Each case is a pytest process of its own, because the flag acts while pytest configures itself.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).resolve().parent.parent
SUITE = Path("bench/measure/throughput")
PROJECT = """
[tool.pytest.ini_options]
testpaths = ["tests", "bench/measure/throughput"]
python_files = ["test_*.py", "bench_*.py"]
addopts = ["--strict-markers", "--strict-config"]
"""
# plugins without a part in this that take their time to start
QUIET = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:jaxtyping")
ORDINARY = "def test_ordinary():\n    assert True\n"
TIMED = """
import pathlib

def test_timed(benchmark):
    calls = []
    assert benchmark(lambda: calls.append(1) or len(calls)) == len(calls)
    pathlib.Path("calls.txt").write_text(str(len(calls)))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with this suite's plugin at this suite's place, and a benchmark of its own."""
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / SUITE).mkdir(parents=True)
    for path in (
        SUITE / "plugin.py",
        *(folder / "__init__.py" for folder in (SUITE, *SUITE.parents[:2])),
    ):
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for name, text in {
        "tests/test_a.py": ORDINARY,
        "bench/measure/throughput/bench_a.py": TIMED,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *QUIET, *options]
    # A worker of pytest-xdist is known by these, and pytest-benchmark measures nothing in one.
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return subprocess.run(
        command, cwd=project, env=alone, capture_output=True, text=True, timeout=60
    )


def calls(project: Path) -> int:
    return int((project / "calls.txt").read_text())


def test_plain_pytest_runs_each_body_once_and_prints_no_table(project: Path) -> None:
    result = run(project)
    assert result.returncode == 0
    assert "2 passed" in result.stdout
    assert calls(project) == 1
    assert "Rounds" not in result.stdout


def test_the_flag_measures_the_suite_alone_within_bounded_rounds(project: Path) -> None:
    result = run(project, "--benchmark", "--benchmark-max-time=0.2", "--benchmark-json=out.json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout
    assert "skipped" not in result.stdout  # tests/ was not even collected
    document = json.loads((project / "out.json").read_text())
    (case,) = document["benchmarks"]
    # 0.2 s / 5 ms = 40 rounds; calibration may estimate a round too short by up to half
    assert 5 <= len(case["stats"]["data"]) <= 80
    machine = document["machine_info"]
    assert {"torch_version", "torch_threads"} <= machine.keys()
    assert "node" not in machine
    assert not [name for name in machine["cpu"] if name.startswith("hz_")]


def test_with_paths_the_flag_means_benchmark_only(project: Path) -> None:
    result = run(
        project, "tests", "bench/measure/throughput", "--benchmark", "--benchmark-max-time=0.05"
    )
    assert result.returncode == 0
    assert "1 passed, 1 skipped" in result.stdout


def test_the_plugins_own_options_are_left_alone(project: Path) -> None:
    result = run(
        project,
        "--benchmark-only",
        "--benchmark-columns=min,rounds",
        "--benchmark-min-time=0.05",
        "--benchmark-max-time=0.2",
    )
    assert result.returncode == 0
    assert re.search(r"Min\s*(\(.*\))?\s+Rounds", result.stdout)
    assert "Median" not in result.stdout
    (row,) = (line for line in result.stdout.splitlines() if line.startswith("test_timed"))
    assert int(row.split()[-1]) <= 8  # 0.2 s / 50 ms = 4 rounds, twice that for a short estimate


def test_workers_beside_a_measurement_are_refused(project: Path) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed: nothing to refuse")
    result = run(project, "--benchmark", "-n", "2")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "drop -n" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_without_the_plugin_bodies_run_once_and_the_flag_explains_itself(project: Path) -> None:
    plain = run(project, "-p", "no:benchmark")
    assert plain.returncode == 0
    assert "2 passed" in plain.stdout
    assert calls(project) == 1
    asked = run(project, "-p", "no:benchmark", "--benchmark")
    assert asked.returncode == pytest.ExitCode.USAGE_ERROR
    assert "drop -p no:benchmark" in asked.stderr


def test_an_abbreviation_of_the_flag_is_not_the_flag(project: Path) -> None:
    assert run(project, "--bench").returncode == pytest.ExitCode.USAGE_ERROR


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Somebody else's project, in an environment in which this package is installed."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_theirs.py").write_text(TIMED)
    return tmp_path


def run_beside(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "bench.measure.throughput.plugin", *QUIET]
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [*command, *options],
        cwd=project,
        env={**alone, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_beside_a_foreign_project_nothing_changes(foreign: Path) -> None:
    """Their benchmarks are measured without a flag, by pytest-benchmark's own round length, with their host's name."""
    result = run_beside(foreign, "--benchmark-max-time=0.05", "--benchmark-json=out.json")
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads((foreign / "out.json").read_text())
    (case,) = document["benchmarks"]
    assert len(case["stats"]["data"]) > 0.05 / 0.005 * 2  # more rounds than ours would make
    assert {"node"} <= document["machine_info"].keys()
    assert "torch_version" not in document["machine_info"]


def test_the_flag_in_a_foreign_folder_collects_this_suite(foreign: Path) -> None:
    result = run_beside(foreign, "--benchmark", "--collect-only", "-q")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "test_noise_and_q_sample[" in result.stdout
    assert "test_theirs" not in result.stdout
