"""`pytest --benchmark` measures; plain `pytest` in this repository runs every benchmark body once, untimed.

A plugin, so that it works from a checkout and from an installed package alike. Beside a foreign project it changes nothing: all
rules but the flag itself hold in this repository only. They go through pytest-benchmark, whose own `--benchmark-*` options
keep their meaning:

1. `--benchmark` is a flag. It means `--benchmark-only`, set before pytest-benchmark reads its options, and where no path is
   given it collects this suite alone: a process that has imported the whole test suite is no place to measure in.
2. Without a wish to measure (`--benchmark`, `--benchmark-only`, `--benchmark-enable`, or an option that saves, compares
   or profiles) bodies run once at tiny sizes, as tests of the benchmarks themselves.
3. Time is never measured beside another worker: `--benchmark -n 2` is refused.

pytest-benchmark chooses rounds = max_time / min_time. Its minimum of 5 µs a round makes up to 200,000 rounds and a JSON
file of megabytes for each fast case; ours is 5 ms, so at most 200 rounds, unless `--benchmark-min-time` says otherwise.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLUGIN = "benchmark"
PLUGIN_MIN_TIME = "0.000005"
BOUNDED_MIN_TIME = "0.005"
SUITE = Path(__file__).parent

_ASKS_TO_MEASURE = (
    "benchmark_only",
    "benchmark_enable",
    "benchmark_json",
    "benchmark_save",
    "benchmark_autosave",
    "benchmark_compare",
    "benchmark_compare_fail",
    "benchmark_histogram",
    "benchmark_cprofile",
)
_VOLATILE = ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register `--benchmark` and the options of the throughput suite."""
    group = parser.getgroup("throughput", "throughput suite")
    group.addoption(
        "--benchmark",
        action="store_true",
        default=False,
        help="measure: run the benchmarks only (the throughput suite where no path is given)",
    )
    group.addoption(
        "--throughput-device",
        metavar="DEVICE",
        default="cpu",
        help="device of the throughput suite, for example cuda (default: %(default)s)",
    )
    group.addoption(
        "--throughput-threads",
        metavar="N",
        type=int,
        default=None,
        help="torch threads, fixed for the whole run and recorded (default: torch's choice)",
    )
    group.addoption(
        "--throughput-scaling",
        metavar="ELEMENTS",
        type=float,
        default=None,
        help="also measure noise + q_sample from 1e4 up to this many elements, for example 1e8",
    )


def _refuse_workers(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) or config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            "--benchmark measures time, and workers that run side by side take it from each other: "
            "drop -n / --dist (or pass -n 0)"
        )


def _at_home(config: pytest.Config) -> bool:
    """Whether pytest runs in the repository that this plugin is part of."""
    return config.rootpath / "bench" / "measure" / "throughput" == SUITE


def _narrow_to_suite(config: pytest.Config) -> None:
    """Collect the suite alone where no path was given; by file, since the patterns of another project are not ours."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(path) for path in sorted(SUITE.glob("bench_*.py"))]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Settle what pytest-benchmark will read in its own configure hook, which runs last."""
    wanted = config.getoption("--benchmark")
    if not (wanted or _at_home(config)):
        return
    if not config.pluginmanager.hasplugin(PLUGIN):
        _without_pytest_benchmark(config, wanted)
        return
    if wanted:
        _refuse_workers(config)
        _narrow_to_suite(config)
        config.option.benchmark_only = True
    elif not any(config.getoption(option, None) for option in _ASKS_TO_MEASURE):
        config.option.benchmark_disable = True
    if str(config.option.benchmark_min_time) == PLUGIN_MIN_TIME:
        config.option.benchmark_min_time = BOUNDED_MIN_TIME
    if config.getoption("--throughput-device") != "cpu":
        _use_synchronizing_clock(config)
    config.pluginmanager.register(_MachineInfo(config), "throughput-machine-info")


def _without_pytest_benchmark(config: pytest.Config, wanted: bool) -> None:
    """The flag cannot mean anything; plain bodies still run once."""
    if wanted:
        raise pytest.UsageError(
            "--benchmark needs the pytest-benchmark plugin: drop -p no:benchmark, or "
            "pip install pytest-benchmark"
        )
    config.addinivalue_line("markers", "benchmark: settings of pytest-benchmark (inactive).")
    config.pluginmanager.register(_RunOnce(), "benchmark-bodies-run-once")


def _use_synchronizing_clock(config: pytest.Config) -> None:
    """On an accelerator a call returns before its work is done: read the clock after waiting."""
    if "perf_counter" in str(config.option.benchmark_timer):
        config.option.benchmark_timer = "bench.measure.throughput.clock.synchronizing_clock"


class _MachineInfo:
    """Adds what decides the speed; drops the host's name and clock readings, which differ every run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Hook of pytest-benchmark."""
        import torch

        for name in _VOLATILE:
            machine_info.get("cpu", {}).pop(name, None)
        machine_info.pop("node", None)
        machine_info["torch_version"] = torch.__version__
        machine_info["torch_threads"] = self._config.getoption("--throughput-threads") or (
            torch.get_num_threads()
        )
        machine_info["throughput_device"] = self._config.getoption("--throughput-device")


class _Once:
    """Stands in for the `benchmark` fixture where the plugin is absent: calls, does not measure."""

    enabled = False
    disabled = True
    stats = None

    def __init__(self) -> None:
        self.extra_info: dict[str, object] = {}
        self.group: str | None = None

    def __call__(self, function: Callable[..., object], *args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)


class _RunOnce:
    """Plugin with the stand-in fixture."""

    @pytest.fixture
    def benchmark(self) -> _Once:
        """Call the body once, untimed: pytest-benchmark is not active."""
        return _Once()
