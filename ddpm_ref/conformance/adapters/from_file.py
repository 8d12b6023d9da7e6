"""A user's own adapter: `FILE.py:CLASS`, and the commented file to start from."""

import importlib.util
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from ddpm_ref.conformance.implementation import Convention, Implementation
from ddpm_ref.validation import unknown_name

_TEMPLATE = Path(__file__).with_name("template.py")


def is_file_reference(name: str) -> bool:
    """`my_adapter.py:Mine` and `my_adapter.py`, as against the name of a library."""
    return name.partition(":")[0].endswith(".py")


def load(reference: str) -> Implementation:
    """The adapter that a class in a file describes.

    Args:
        reference: `FILE.py:CLASS`; `FILE.py` alone where it has one adapter.

    Raises:
        ValueError: no such file or class, a class that is no `Implementation`, or several where one is asked for.
        TypeError: an attribute of the adapter of the wrong type.
        Exception: whatever the file or the constructor raises.
    """
    file, _, name = reference.partition(":")
    path = Path(os.path.expanduser(file))
    if not os.path.isfile(path):
        raise ValueError(
            f"there is no file {file!r}: give FILE.py:CLASS, or make one with --init {file}"
        )
    module = imported(path)
    found = _adapters(module)
    if not name and len(found) != 1:
        raise ValueError(
            f"{file} has {len(found)} adapters ({', '.join(found) or 'none'}): say which, as in {file}:MyDiffusion"
        )
    if name and name not in found:
        raise _no_such_adapter(file, name, module, found)
    return _checked(found[name or next(iter(found))]())


def _no_such_adapter(
    file: str, name: str, module: ModuleType, found: dict[str, type[Implementation]]
) -> ValueError:
    if hasattr(module, name):
        return ValueError(
            f"{name} in {file} is no adapter: write class {name}(ddpm_ref.conformance.Implementation)"
        )
    if not found:
        return ValueError(
            f"{file} has no adapter: a class that derives from ddpm_ref.conformance.Implementation is wanted"
        )
    return unknown_name(f"adapter in {file}", name, found)


def _checked(adapter: Implementation) -> Implementation:
    """The adapter, whose attributes are what the laws read without asking."""
    from ddpm_ref.conformance.lawbook.truth import PARAMETERIZATIONS, WEIGHTINGS

    rules = {
        "name": (isinstance(adapter.name, str), "a str"),
        "version": (isinstance(adapter.version, str), "a str"),
        "first_index": (type(adapter.first_index) is int, "an int: what the code calls our t = 1"),
        "dtypes": (_tuple_of(adapter.dtypes, torch.dtype), "a tuple of dtypes, (torch.float32,)"),
        "parameterizations": _names(adapter.parameterizations, PARAMETERIZATIONS),
        "weightings": _names(adapter.weightings, WEIGHTINGS),
        "table_dtype": (isinstance(adapter.table_dtype, torch.dtype), "a dtype, torch.float32"),
        "conventions": (
            adapter.conventions == () or _tuple_of(adapter.conventions, Convention),
            "a tuple of Convention, () for none",
        ),
    }
    for name, (kept, rule) in rules.items():
        if not kept:
            raise TypeError(f"{name} = {getattr(adapter, name)!r} of the adapter must be {rule}")
    return adapter


def _names(value: object, known: Sequence[str]) -> tuple[bool, str]:
    kept = _tuple_of(value, str) and set(value) <= set(known)  # type: ignore[call-overload]
    return kept, f"a tuple of names among {', '.join(known)}"


def _tuple_of(value: object, kind: type) -> bool:
    """A sequence of at least one `kind` and nothing else."""
    return (
        isinstance(value, tuple | list) and bool(value) and all(isinstance(v, kind) for v in value)
    )


def write_template(path: Path) -> None:
    """A commented adapter to fill in.

    Raises:
        FileExistsError: there is something at `path` already.
    """
    text = _TEMPLATE.read_text(encoding="utf-8").replace("THIS_FILE.py", str(path))
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def imported(path: Path) -> ModuleType:
    """The file as a module; its own folder is importable, as it is for `python FILE.py`.

    Raises:
        ValueError: it is no Python file.
        BaseException: whatever the file raises.
    """
    # Its own name, so that a snippet says `from my_adapter import …`; another one where that would hide a module.
    name = f"adapter_{path.stem}" if path.stem in sys.modules else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported as Python: it has to be a .py file")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _adapters(module: ModuleType) -> dict[str, type[Implementation]]:
    """Adapters that the file itself defines."""
    return {
        name: kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and issubclass(kind, Implementation)
        and kind.__module__ == module.__name__
    }
