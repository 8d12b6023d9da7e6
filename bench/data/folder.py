"""`folder:PATH`: a user's own images, 8 bits a channel, all of one size.

Files are read with Pillow in the order of their relative paths. Grey images stay grey; if any image has colour, all
become RGB. Nothing is resized or cropped: that would change the data whose likelihood is measured.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import DataSet, assemble, split_by_content
from bench.terminal.usage import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
)
_GREY_MODES = frozenset({"1", "L", "LA"})
_HELDOUT_SHARE, _TUNE_SHARE = 0.15, 0.05
_FEWEST = 20


def _opened(paths: list[Path], root: Path) -> Iterator["Image"]:
    from PIL import Image, UnidentifiedImageError

    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
                yield image
        except (OSError, UnidentifiedImageError) as error:
            name = path.relative_to(root)
            raise UsageError(f"folder: {name} cannot be read ({error}): remove it") from error


def _pixels(image: "Image", mode: str) -> Tensor:
    array = np.asarray(image.convert(mode))
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(planes.copy())


def read_folder(root: Path) -> Tensor:
    """All images below a directory, uint8 `[N, C, H, W]`, ordered by relative path.

    Raises:
        UsageError: no directory, too few images, an unreadable one, or more than one size.
    """
    if not root.is_dir():
        raise UsageError(f"folder: {root} is not a directory: write folder:PATH_TO_IMAGES")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if len(paths) < _FEWEST:
        raise UsageError(f"folder: {root} holds {len(paths)} images; at least {_FEWEST} are needed")
    images = [image.copy() for image in _opened(paths, root)]
    for path, image in zip(paths, images, strict=True):
        if image.size != images[0].size:
            raise UsageError(
                f"folder: {path.relative_to(root)} is {image.size[0]}×{image.size[1]} but "
                f"{paths[0].relative_to(root)} is {images[0].size[0]}×{images[0].size[1]}: "
                "resize all images to one size first"
            )
    mode = "L" if all(image.mode in _GREY_MODES for image in images) else "RGB"
    return torch.stack([_pixels(image, mode) for image in images])


def load_folder(root: Path) -> DataSet:
    """A user's images as a `DataSet`: 15 % held out, 5 % for tuning, chosen by each image's own bytes."""
    images = read_folder(root)
    heldout, tune = round(_HELDOUT_SHARE * len(images)), round(_TUNE_SHARE * len(images))
    return assemble(
        "folder",
        *split_by_content(images, heldout=heldout, tune=tune),
        levels=256,
        source="the user's own images",
        provenance="as found",
    )
