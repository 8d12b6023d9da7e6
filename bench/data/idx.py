"""MNIST's own format, IDX: a big-endian header, then the bytes; usually gzipped.

    0x00 0x00 | type (0x08 = unsigned byte) | number of dimensions | each dimension as uint32 | the values, row-major

MNIST and Fashion-MNIST share file names and shapes. The publishers' checksums are those of the gzipped files; a
distribution that compresses again keeps the payload and changes them, and gzip's own CRC-32 then vouches for the
bytes only as they were packed. Which of the two was checked is recorded.
"""

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import DataSet, assemble, split_by_content
from bench.data.location import NotThereError, check_memory, first_that_has, refuse_few, remedy
from bench.terminal.usage import UsageError

TRAIN = "train-images-idx3-ubyte"
TEST = "t10k-images-idx3-ubyte"

_PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "mnist": {
        TRAIN: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        TEST: "9fb629c4189551a2d022fa330f9573f3",
    },
    "fashion-mnist": {
        TRAIN: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        TEST: "bef4ecab320f06d8554ea6380940ec79",
    },
}
_SOURCES = {
    "mnist": "MNIST, LeCun, Cortes and Burges 1998, from NIST's public-domain databases",
    "fashion-mnist": "Fashion-MNIST, Xiao, Rasul and Vollgraf 2017 (arXiv:1708.07747), Zalando SE, MIT licence",
}
_PLACES = {
    "mnist": ("MNIST/raw", "mnist"),
    "fashion-mnist": ("FashionMNIST/raw", "fashion-mnist"),
}
_TUNE = 1000


def read_idx(path: Path) -> Tensor:
    """The array in one IDX file, gzipped or not: uint8, in the shape that its header states.

    Raises:
        UsageError: truncated, damaged, or not an IDX file of unsigned bytes.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                return _read_array(file, path.name)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read_array(unpacked, path.name)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path.name} cannot be read ({error}): fetch it again") from error


def _read_array(file: "BinaryIO | gzip.GzipFile", name: str) -> Tensor:
    """Header, then exactly as many values as it says: what unpacks to more is never unpacked whole."""
    start = file.read(4)
    if len(start) < 4 or start[:3] != b"\x00\x00\x08":
        raise UsageError(f"{name} is not an IDX file of unsigned bytes: fetch it again")
    lengths = file.read(4 * start[3])
    shape = tuple(int.from_bytes(lengths[k : k + 4], "big") for k in range(0, len(lengths), 4))
    wanted = math.prod(shape)
    check_memory(name, wanted)
    content = file.read(wanted + 1)  # one more: the end, where gzip's checksum is compared
    if len(lengths) != 4 * start[3] or len(content) != wanted:
        found = "more" if len(content) > wanted else len(content)
        raise UsageError(
            f"{name} holds {found} values where its header says {shape}: fetch it again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())


def _spellings(stem: str) -> tuple[str, ...]:
    """The names under which a file goes round: with a dash or a dot, gzipped or not, or in a folder of its own name."""
    dotted = stem.replace("-idx3", ".idx3")
    return (f"{stem}.gz", stem, f"{dotted}.gz", dotted, f"{stem}/{stem}", f"{dotted}/{dotted}")


def _locate(directory: Path, stem: str) -> Path | None:
    paths = (directory / spelling for spelling in _spellings(stem))
    return next((path for path in paths if os.path.isfile(path)), None)


def _provenance(name: str, paths: Mapping[str, Path]) -> str:
    actual = {
        stem: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for stem, path in paths.items()
    }
    if actual == _PUBLISHED[name]:
        return "gzipped files have the publisher's MD5"
    return "repacked: the publisher's MD5 does not apply; header and lengths were checked"


def load_idx(name: str, root: Path | None, tune: int = _TUNE) -> DataSet:
    """MNIST or Fashion-MNIST: the publisher's test set is held out, `tune` training images are set aside.

    Args:
        name: `mnist` or `fashion-mnist`.
        root: directory with the files, or with torchvision's folder layout; None: the usual places.
        tune: images for choosing learning rates.
    """
    directory = first_that_has(
        root, _PLACES[name], lambda folder: _locate(folder, TRAIN) is not None
    )
    if directory is None:
        files = f"{TRAIN}.gz and {TEST}.gz, or unpacked"
        raise NotThereError(remedy(name, root, _PLACES[name], files))
    paths = {stem: _locate(directory, stem) for stem in (TRAIN, TEST)}
    found = {stem: path for stem, path in paths.items() if path is not None}
    if TEST not in found:
        raise NotThereError(
            f"{name}: {TEST}.gz is missing beside the training images: fetch it too, with --download for instance"
        )
    images = {stem: read_idx(path) for stem, path in found.items()}
    for stem, array in images.items():
        if array.ndim != 3 or len(array) < 2 or 0 in array.shape:
            raise UsageError(
                f"{stem} has shape {tuple(array.shape)}, expected [N, H, W]: wrong file"
            )
    if images[TRAIN].shape[1:] != images[TEST].shape[1:]:
        sizes = " but ".join(f"{stem} has {tuple(a.shape[1:])}" for stem, a in images.items())
        raise UsageError(f"{name}: {sizes}: the files belong to two data sets; fetch both again")
    refuse_few(name, TRAIN, len(images[TRAIN]), tune)
    train, tuning, _ = split_by_content(images[TRAIN][:, None], heldout=0, tune=tune)
    return assemble(
        name,
        train,
        tuning,
        images[TEST][:, None],
        levels=256,
        source=_SOURCES[name],
        provenance=_provenance(name, found),
    )
