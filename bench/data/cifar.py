"""CIFAR-10 in either of its published formats: Python pickles or binary records.

    binary  each record is 1 label byte and 3072 image bytes, red, green and blue planes of 32×32, row-major
    python  a pickled dictionary whose b"data" is a uint8 array [N, 3072] in the same order

A pickle can run code; `bench.data.array_pickle` reads the array without running any.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.array_pickle import RefusedError, images_of
from bench.data.dataset import DataSet, assemble, split_by_content
from bench.data.location import NotThereError, first_that_has, refuse_few, remedy
from bench.terminal.usage import UsageError

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3072
_PLACES = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar10")
_SOURCE = "CIFAR-10, Krizhevsky 2009 (Learning Multiple Layers of Features from Tiny Images)"
_TUNE = 1000
_PUBLISHED = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def read_pickle(path: Path) -> Tensor:
    """Images of one Python batch file, uint8 `[N, 3, 32, 32]`.

    Raises:
        UsageError: damaged, unsafe, or not a CIFAR-10 batch.
    """
    try:
        data = images_of(path.read_bytes())
    except RefusedError as error:
        raise UsageError(
            f"{path.name} is refused: it asks for {error}, which no CIFAR-10 batch needs: fetch it again"
        ) from error
    except Exception as error:  # what damaged bytes make `pickle` raise is listed nowhere
        cause = str(error) or type(error).__name__
        raise UsageError(
            f"{path.name} is not a CIFAR-10 batch ({cause}): fetch it again"
        ) from error
    return torch.from_numpy(data.reshape(-1, *_SHAPE).copy())


def read_binary(path: Path) -> Tensor:
    """Images of one binary batch file, uint8 `[N, 3, 32, 32]`.

    Raises:
        UsageError: the length is not a whole number of records.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read ({error}): fetch it again") from error
    if len(content) == 0 or len(content) % _RECORD:
        raise UsageError(
            f"{path.name} has {len(content)} bytes, not a multiple of {_RECORD}: fetch it again"
        )
    return torch.from_numpy(content.reshape(-1, _RECORD)[:, 1:].reshape(-1, *_SHAPE).copy())


def _batches(directory: Path) -> dict[str, Path]:
    paths = (directory / f"{stem}{suffix}" for stem in _PUBLISHED for suffix in ("", ".bin"))
    return {path.stem: path for path in paths if os.path.isfile(path)}


def _provenance(paths: dict[str, Path]) -> str:
    actual = {
        stem: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for stem, path in paths.items()
    }
    if actual == _PUBLISHED:
        return "batch files have the publisher's MD5"
    return "binary or repacked: the publisher's MD5 does not apply; record lengths were checked"


def load_cifar10(root: Path | None, tune: int = _TUNE) -> DataSet:
    """CIFAR-10: the publisher's test batch is held out, `tune` training images are set aside."""
    directory = first_that_has(root, _PLACES, lambda folder: "test_batch" in _batches(folder))
    if directory is None:
        files = "data_batch_1 … data_batch_5 and test_batch, or the same with .bin"
        raise NotThereError(remedy("cifar10", root, _PLACES, files))
    paths = _batches(directory)
    if missing := sorted(set(_PUBLISHED) - set(paths)):
        raise UsageError(f"cifar10: {', '.join(missing)} missing in {directory}: unpack it again")
    images = {
        stem: read_binary(path) if path.suffix == ".bin" else read_pickle(path)
        for stem, path in paths.items()
    }
    test = images.pop("test_batch")
    refuse_few("cifar10", "data_batch_1 … 5", sum(map(len, images.values())), tune)
    train, tuning, _ = split_by_content(torch.cat(list(images.values())), heldout=0, tune=tune)
    return assemble(
        "cifar10",
        train,
        tuning,
        test,
        levels=256,
        source=_SOURCE,
        provenance=_provenance(paths),
    )
