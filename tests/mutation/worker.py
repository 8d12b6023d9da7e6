"""The tests on one mutated module, in a forked process that already holds torch.

Importing torch and the test libraries takes seconds, importing this project a tenth of one. So the parent imports the first and
never the second; a child is forked, a finder in front of `sys.meta_path` gives it the mutated source under the module's
own name, and pytest runs in it until the first failure.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

PRELOADED = (
    "torch",
    "numpy",
    "scipy.stats",
    "scipy.special",
    "scipy.integrate",
    "mpmath",
    "pytest",
    "torchmetrics.image.fid",
)
"""What the tests import beside this project."""


@dataclass(frozen=True)
class Verdict:
    """What became of one mutation.

    Attributes:
        status: `killed`, `survived` or `timeout` (which counts as killed: the mutant does not end).
        killer: the first test that failed; "" for survivors.
        seconds: processor time it took.
    """

    status: str
    killer: str
    seconds: float


def preload() -> None:
    """Import the heavy libraries, and nothing of this project's mathematics."""
    for name in PRELOADED:
        importlib.import_module(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self._module, self._path, self._source = module, path, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        package = [str(self._path.parent)] if self._path.name == "__init__.py" else None
        spec = importlib.util.spec_from_loader(
            fullname, self, origin=str(self._path), is_package=package is not None
        )
        if spec is not None and package is not None:
            spec.submodule_search_locations = package
        return spec

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)


class _Run:
    """A pytest plugin that puts the mutated module in place and remembers what failed first."""

    def __init__(self, finder: _Finder | None) -> None:
        self.name = ""
        self._finder = finder

    def pytest_configure(self) -> None:
        """In front of pytest's own import hook, which takes the modules of an installed plugin's package."""
        if self._finder is not None:
            sys.meta_path.insert(0, self._finder)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = f"{report.nodeid} (import)"


def module_name(path: str) -> str:
    """`ddpm_ref/oracle/base.py` → `ddpm_ref.oracle.base`."""
    return ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")


def run_tests(
    root: Path,
    tests: Sequence[str],
    mutated: tuple[str, str] | None,
    answer: Connection,
    limit: int | None = None,
) -> None:
    """The body of the child: send (exit status of pytest, first failure, processor seconds) and end.

    Args:
        root: the repository.
        tests: files or node ids, in the order in which they are to run.
        mutated: (path, source) of the mutated module; None for the control.
        answer: where the result goes.
        limit: seconds of processor time, after which the system ends the child (SIGXCPU).
    """
    os.setsid()
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    _silence()
    import pytest
    import torch

    torch.set_num_threads(1)
    finder = None
    if mutated is not None:
        path, source = mutated
        finder = _Finder(module_name(path), root / path, source)
    os.chdir(root)
    sys.path.insert(0, str(root))
    run = _Run(finder)
    options = ["-x", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    status = int(pytest.main([*options, *tests], plugins=[run]))
    answer.send((status, run.name, time.process_time()))
    answer.close()
    os._exit(0)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
