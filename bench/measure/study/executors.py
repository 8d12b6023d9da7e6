"""Executors by name: `dask:tcp://HOST:8786`, or `PACKAGE.MODULE:MAKE` for any other.

`MAKE()` returns a `concurrent.futures.Executor`: of MPI (`mpi4py.futures.MPIPoolExecutor` is one already), of submitit behind a wrapper, of
Ray, of a batch system. Naming it **runs that code**.
"""

import importlib
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from bench.terminal.usage import UsageError, missing_package

_DASK = "dask:"
_PATIENCE = "5s"


@contextmanager
def executor_from(spec: str | None) -> Iterator[Executor | None]:
    """The executor of a name for as long as it is needed; None for None.

    Raises:
        UsageError: the name is neither form, the package is not installed, or nothing answers at the address.
    """
    if spec is None:
        yield None
    elif spec.startswith(_DASK):
        with _dask(spec.removeprefix(_DASK)) as executor:
            yield executor
    else:
        with _made(spec) as executor:
            yield executor


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        raise missing_package("distributed") from error
    try:
        client = distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--executor {_DASK}{address}: no dask scheduler answers there ({error}); start one with `dask scheduler` and "
            "workers with `dask worker ADDRESS --nthreads 1`"
        ) from error
    with client:
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _made(spec: str) -> Iterator[Executor]:
    module, separator, name = spec.partition(":")
    if not separator or not module or not name:
        raise UsageError(
            f"--executor {spec!r}: write dask:tcp://HOST:8786, or PACKAGE.MODULE:MAKE for a function that makes an Executor"
        )
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--executor {spec!r}: {error}; name a function of a module") from error
    if not isinstance(made, Executor):
        raise UsageError(
            f"--executor {spec!r}: it returned a {type(made).__name__}, not a concurrent.futures.Executor"
        )
    with made:
        yield made
