"""Files of a checkout as modules, each under a name of its own."""

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


def package_module(folder: Path, module: str, alias: str) -> ModuleType:
    """`folder/module.py` with its relative imports, without the package's `__init__`, which imports data sets and loggers.

    Args:
        folder: the package.
        module: dotted name in it.
        alias: what the package is called here.
    """
    package = ModuleType(alias)
    package.__path__ = [str(folder)]
    sys.modules[alias] = package
    for name in [each for each in sys.modules if each.startswith(f"{alias}.")]:
        del sys.modules[name]  # another checkout of the same repository
    return importlib.import_module(f"{alias}.{module}")


def file_module(path: Path, alias: str) -> ModuleType:
    """One file as the module `alias`."""
    spec = importlib.util.spec_from_file_location(alias, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return module


class _StandIn(ModuleType):
    """A module in which every name in capitals is an empty network class, and every other a decorator that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {}) if name[0].isupper() else lambda decorated: decorated


@contextmanager
def stand_ins(*names: str) -> Iterator[None]:
    """Inside the block an import of these packages gives an empty module where they are not installed."""
    absent = [n for n in names if _absent(n.partition(".")[0])]
    for name in absent:
        module = _StandIn(name)
        module.__path__ = []
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


def _absent(top: str) -> bool:
    if top in sys.modules:
        return isinstance(sys.modules[top], _StandIn)
    return importlib.util.find_spec(top) is None


@contextmanager
def first_on_path(root: Path, *owned: str) -> Iterator[None]:
    """Inside the block the checkout's top-level names are imported from it; afterwards they are forgotten."""
    before = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in owned}
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in [n for n in sys.modules if n.partition(".")[0] in owned]:
            del sys.modules[name]
        sys.modules.update(before)


def commit(root: Path) -> str:
    """The checkout's commit, "unknown" without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"],
            capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
