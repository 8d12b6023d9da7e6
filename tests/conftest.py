"""Two guards around every test: no socket beyond this machine, and no file written outside the places that tests may use.

By an audit hook of the interpreter (PEP 578), which sees what Python code does in this process; what a test starts as a process of its own
is not watched.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]
_LOCAL = ("127.", "::1", "localhost")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CACHES = ("__pycache__", ".pytest_cache", ".hypothesis", ".benchmarks", ".mypy_cache", ".ruff_cache", ".coverage")  # fmt: skip
"""Names within the checkout that tools write beside the code."""

_broken: list[str] = []
_watching = False


def _usual_places() -> tuple[str, ...]:
    """Temporary files, devices, and the caches of compiled kernels and of matplotlib's fonts."""
    home = Path.home()
    caches = [os.environ.get("XDG_CACHE_HOME") or home / ".cache", home / ".config" / "matplotlib"]
    given = [os.environ[name] for name in ("MPLCONFIGDIR", "PYTEST_DEBUG_TEMPROOT") if name in os.environ]  # fmt: skip
    return tuple(os.path.realpath(place) for place in (tempfile.gettempdir(), "/dev", "/proc/self", *caches, *given))  # fmt: skip


_places: tuple[str, ...] = ()


def _watch(event: str, given: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in ("socket.connect", "socket.sendto"):
        _check_address(event, given[-1])
    elif event == "open":
        path, mode, flags = given
        written = any(letter in mode for letter in "wax+") if mode else bool((flags or 0) & _WRITES)
        if written and not isinstance(path, int):
            _check_place(path)


def _check_address(event: str, address: object) -> None:
    """(host, port, …); the path of a UNIX socket never leaves the machine."""
    if isinstance(address, tuple) and not str(address[0]).startswith(_LOCAL):
        _refuse(f"{event} to {address[0]}")


def _check_place(path: object) -> None:
    try:
        place = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
    except FileNotFoundError:  # of a working directory that is gone
        return
    if place.startswith(_places) or not os.path.isdir(os.path.dirname(place)):
        return  # where there is no folder, nothing comes to be
    try:
        inside = Path(place).relative_to(_ROOT)
    except ValueError:
        _refuse(f"{place} opened for writing")
        return
    if not any(part.startswith(_CACHES) for part in inside.parts):
        _refuse(f"{place} opened for writing, within the checkout")


def _refuse(what: str) -> None:
    _broken.append(what)
    raise PermissionError(f"a test may not do this: {what}")


@pytest.fixture(scope="session", autouse=True)
def guards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Watch from the first test to the last; a hook cannot be taken out again, so that it is told to look away."""
    global _watching, _places
    _places = (*_usual_places(), os.path.realpath(tmp_path_factory.getbasetemp()))
    sys.addaudithook(_watch)
    _watching = True
    yield
    _watching = False


@pytest.fixture(autouse=True)
def keeps_to_its_folder(guards: None) -> Iterator[None]:
    """The test fails even where the code under it swallowed the refusal."""
    del guards
    before = len(_broken)
    yield
    assert _broken[before:] == []
