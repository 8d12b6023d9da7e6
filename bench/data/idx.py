"""MNIST's own format, IDX: a big-endian header, then the bytes; usually gzipped.

    0x00 0x00 | type (0x08 = unsigned byte) | number of dimensions | each dimension as uint32 | the values, row-major

MNIST and Fashion-MNIST share file names and shapes. The publishers' checksums are those of the gzipped files; a
distribution that compresses again keeps the payload and changes them, and gzip's own CRC-32 then vouches for the
bytes only as they were packed. Which of the two was checked is recorded.
"""

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import DataSet, assemble, split_by_content
from bench.data.location import first_that_has, remedy
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
_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_TUNE = 1000


def read_idx(path: Path) -> Tensor:
    """The array in one IDX file, gzipped or not: uint8, in the shape that its header states.

    Raises:
        UsageError: truncated, damaged, or not an IDX file of unsigned bytes.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path.name} cannot be read ({error}): fetch it again") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise UsageError(f"{path.name} is not an IDX file of unsigned bytes: fetch it again")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    lengths = content[4:header]
    shape = tuple(int.from_bytes(lengths[k : k + 4], "big") for k in range(0, len(lengths), 4))
    if len(shape) != dimensions or len(content) - header != math.prod(shape):
        raise UsageError(
            f"{path.name} holds {len(content) - header} values where its header says {shape}: "
            "fetch it again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())


def _locate(directory: Path, stem: str) -> Path | None:
    return next(
        (path for path in (directory / f"{stem}.gz", directory / stem) if path.is_file()), None
    )


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
        raise UsageError(remedy(name, root, _PLACES[name], _TORCHVISION[name]))
    paths = {stem: _locate(directory, stem) for stem in (TRAIN, TEST)}
    found = {stem: path for stem, path in paths.items() if path is not None}
    if TEST not in found:
        raise UsageError(f"{name}: {TEST}.gz is missing beside the training images: fetch it too")
    images = {stem: read_idx(path) for stem, path in found.items()}
    for stem, array in images.items():
        if array.ndim != 3 or len(array) < 2:
            raise UsageError(
                f"{stem} has shape {tuple(array.shape)}, expected [N, H, W]: wrong file"
            )
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
