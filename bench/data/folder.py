"""`folder:PATH`: a user's own images, all of one size.

Files are read in the order of their relative paths, each through the gate of `bench.data.picture`. Grey images stay grey; if any image
has colour, all become RGB. Nothing is resized or cropped: that would change the data whose likelihood is measured.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import DataSet, assemble, digests, split_by_content
from bench.data.location import check_memory
from bench.data.picture import Picture, read_picture
from bench.terminal.usage import UsageError

_SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".bmp",
        ".gif",
        ".webp",
        ".avif",
        ".tif",
        ".tiff",
        ".pgm",
        ".ppm",
        ".pnm",
    ]
)
_HELDOUT_SHARE, _TUNE_SHARE = 0.15, 0.05
_FEWEST = 20


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a folder holds.

    Attributes:
        images: uint8 `[N, C, H, W]`, ordered by relative path.
        done: what was done to how many of them, in words; "as found" where nothing was.
    """

    images: Tensor
    done: str


def read_pictures(root: Path, *, fewest: int = _FEWEST) -> Pictures:
    """All images below a directory, linked folders included, hidden files not.

    Args:
        root: the directory.
        fewest: how many images are needed: a data set is split, a likelihood is of one image already.

    Raises:
        UsageError: no directory, too few images, one that cannot be read right, more than one size, or more than fits into memory.
    """
    if not os.path.isdir(root):
        raise UsageError(f"folder: {root} is not a directory: write folder:PATH_TO_IMAGES")
    paths = sorted(_image_files(root))
    if len(paths) < fewest:
        raise UsageError(
            f"folder: {root} holds {len(paths)} images; at least {fewest} are needed (looked for {' '.join(sorted(_SUFFIXES))})"
        )
    pictures, size = [], None
    for path in paths:
        shown = str(path.relative_to(root))
        picture = read_picture(path, shown)
        height, width = picture.pixels.shape[:2]
        if size is None:
            size, first = (height, width), shown
            check_memory("folder", len(paths) * height * width * picture.pixels[0, 0].size)
        if (height, width) != size:
            raise UsageError(
                f"folder: {shown} is {width}×{height} but {first} is {size[1]}×{size[0]}: resize all images to one size first"
            )
        pictures.append(picture)
    return Pictures(_stacked(pictures), _done(pictures))


def _image_files(root: Path) -> Iterator[Path]:
    """Files with an image's ending below `root`; every folder once, also where links lead to it twice or round in circles."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=_refuse):
        place = os.path.realpath(folder)
        if place in seen:
            below.clear()
            continue
        seen.add(place)
        below.sort()
        for name in names:
            if Path(name).suffix.lower() in _SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _refuse(error: OSError) -> None:
    raise UsageError(
        f"folder: {error.filename} cannot be read ({error.strerror}): give yourself the right to, or remove it"
    ) from error


def _stacked(pictures: list[Picture]) -> Tensor:
    """`[N, 1, H, W]` where all are grey, else `[N, 3, H, W]`."""
    arrays = [picture.pixels for picture in pictures]
    if all(array.ndim == 2 for array in arrays):
        return torch.from_numpy(np.stack(arrays)[:, None])
    colour = [array if array.ndim == 3 else np.stack([array] * 3, axis=-1) for array in arrays]
    return torch.from_numpy(np.stack(colour).transpose(0, 3, 1, 2).copy())


def _done(pictures: list[Picture]) -> str:
    """`16-bit values rounded to 8 bits (40 of 41 images)`, … or `as found`."""
    counts = Counter(what for picture in pictures for what in picture.done)
    grey = sum(picture.pixels.ndim == 2 for picture in pictures)
    if 0 < grey < len(pictures):
        counts["grey made RGB, as others have colour"] = grey
    said = [f"{what} ({count} of {len(pictures)} images)" for what, count in counts.items()]
    return "; ".join(said) or "as found"


def load_folder(root: Path) -> DataSet:
    """A user's images as a `DataSet`: 15 % held out, 5 % for tuning, chosen by each image's own bytes."""
    found = read_pictures(root)
    images = found.images
    different = len(set(digests(images)))
    if different < _FEWEST:
        raise UsageError(
            f"folder: {root} holds {len(images)} images, of which {different} are different (the others are duplicates; "
            f"{found.done}): at least {_FEWEST} different ones are needed"
        )
    heldout, tune = round(_HELDOUT_SHARE * len(images)), round(_TUNE_SHARE * len(images))
    return assemble(
        "folder",
        *split_by_content(images, heldout=heldout, tune=tune),
        levels=256,
        source="the user's own images",
        provenance=found.done,
    )
