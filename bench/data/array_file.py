"""`array:FILE`: images of one's own in a NumPy file, `.npy` or `.npz`, as samplers and preprocessing scripts leave them.

| dtype, shape | read as |
|---|---|
| uint8 `[N, H, W]`, `[N, H, W, C]`, `[N, C, H, W]` with C = 1 or 3 | 256 levels |
| floating point, the same shapes or `[N, D]`, in [−1, 1] | 256 levels where every value is one of them, else continuous |
| floating point beyond [−1, 1], such as latents | continuous, as it is |

What could mean two things is refused: 16 bits, integers that are no bytes, floats on [0, 1], two axes that could be channels.
An `.npz` holds one array, or one called `arr_0` or `images`. Pickled objects are not loaded.
"""

import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import DataSet, assemble, content_hash, from_levels, split_by_content
from bench.data.location import check_memory
from bench.terminal.usage import UsageError

_SUFFIXES = (".npy", ".npz")
_CHANNELS = (1, 3)
_NAMES = ("arr_0", "images")
_ON_LATTICE = 1e-3 * 2 / 255  # as `discretized_gaussian_log_likelihood` snaps
_SOURCE = "the user's own images"
_HELDOUT_SHARE, _TUNE_SHARE = 0.15, 0.05


def read_array(path: Path) -> Tensor:
    """The images of a file: uint8 `[N, C, H, W]`, or float32 `[N, …]` where they are continuous.

    Raises:
        UsageError: no such file, damage, or a dtype, range or shape with no single right reading.
    """
    if not os.path.isfile(path):
        raise UsageError(
            f"--images {path}: there is no such file; give FOLDER, FILE.npy or FILE.npz"
        )
    array = _loaded(path)
    check_memory(path.name, array.size)
    if array.ndim < 2 or 0 in array.shape:
        raise UsageError(
            f"{path.name} has shape {list(array.shape)}: images are [N, H, W] at least"
        )
    if array.dtype == np.uint8:
        return _channels_first(path, array)
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(
            f"{path.name} holds {array.dtype}: bytes (uint8) or floating-point numbers on [-1, 1] are read; convert with "
            "images.astype('uint8') where they are 0 … 255"
        )
    return _floating(path, array)


def _loaded(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = [name for name in _NAMES if name in found.files] or found.files
            if len(names) > 1:
                raise UsageError(
                    f"{path.name} holds the arrays {', '.join(found.files)}: save the images alone, or as 'images'"
                )
            if not names:
                raise UsageError(
                    f"{path.name} holds no array: save one with numpy.savez(FILE, images)"
                )
            return np.asarray(found[names[0]])
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UsageError(
            f"{path.name} cannot be read as a NumPy file ({error}): write it with numpy.save, without objects"
        ) from error


def _channels_first(path: Path, array: np.ndarray) -> Tensor:
    """`[N, C, H, W]`; a length of 1 or 3 tells the channels, and two such axes tell nothing."""
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise UsageError(
            f"{path.name} has shape {list(array.shape)}: images are [N, H, W], [N, H, W, C] or [N, C, H, W]"
        )
    first, last = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
    if first == last:
        what = "could be read both ways" if first else "has no axis of 1 or 3 channels"
        raise UsageError(
            f"{path.name} has shape {list(array.shape)}, which {what}: images are [N, C, H, W] or [N, H, W, C] with 1 or 3 channels"
        )
    return torch.from_numpy(np.ascontiguousarray(array if first else array.transpose(0, 3, 1, 2)))


def _floating(path: Path, array: np.ndarray) -> Tensor:
    if not np.isfinite(array).all():
        raise UsageError(f"{path.name} holds NaN or infinite values: remove those images")
    low, high = float(array.min()), float(array.max())
    if low >= 0 and high <= 1:
        raise UsageError(
            f"{path.name} lies in [{low:.3g}, {high:.3g}], inside [0, 1]: images run from -1 to 1; pass 2 * images - 1"
        )
    if low >= 0 and high > 2:
        raise UsageError(
            f"{path.name} has floating-point values from {low:.3g} to {high:.3g}: save bytes as uint8, or scale them to [-1, 1]"
        )
    grey = (array.astype(np.float64) + 1) * 127.5
    if low >= -1 and high <= 1 and array.ndim in (3, 4):
        near = np.rint(grey)
        if np.abs(grey - near).max() <= _ON_LATTICE * 127.5:
            return _channels_first(path, near.astype(np.uint8))
    return torch.from_numpy(array.astype(np.float32))


def load_array(path: Path) -> DataSet:
    """A NumPy file as a `DataSet`: 15 % held out, 5 % for tuning, chosen by each image's own bytes."""
    images = read_array(path)
    if len(images) < 3:
        raise UsageError(
            f"{path.name} holds {len(images)} images: training needs some to hold out; add images"
        )
    heldout, tune = (max(1, round(share * len(images))) for share in (_HELDOUT_SHARE, _TUNE_SHARE))
    parts = split_by_content(images, heldout=heldout, tune=tune)
    if images.dtype == torch.uint8:
        return assemble("array", *parts, levels=256, source=_SOURCE, provenance="as found")
    digest = content_hash(*parts)
    return DataSet("array", *parts, None, digest, _SOURCE, "as found")


def load_whole(path: Path) -> DataSet:
    """All images of a folder or a NumPy file as the held-out part: nothing is trained on them.

    Raises:
        UsageError: neither, or images that cannot be read; the message names the file.
    """
    if path.suffix.lower() in _SUFFIXES:
        images, done = read_array(path), "as found"
    elif os.path.isdir(path):
        from bench.data.folder import read_pictures

        found = read_pictures(path, fewest=1)
        images, done = found.images, found.done
    else:
        raise UsageError(
            f"--images {path}: neither a folder nor a file in .npy or .npz; give one of them"
        )
    levels = 256 if images.dtype == torch.uint8 else None
    scaled = images if levels is None else from_levels(images, levels)
    none = scaled[:0]
    return DataSet("images", none, none, scaled, levels, content_hash(images), _SOURCE, done)
