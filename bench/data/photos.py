"""`photos:N`: colour patches of side N from the two photographs that scikit-learn carries.

Real images whose ratio of ambient to intrinsic dimension is a dial: D = 3 N², while 99 % of the variance lies in a few dozen to a few
hundred directions.

**Split by region.** Each photograph, 427 × 640 pixels, is cut into three bands of columns: 384 for training, then 64 for tuning, then 192 held
out. A patch lies inside one band, so no pixel is in two parts. Training patches begin at every fourth pixel in both directions and
overlap; those of the other parts do not overlap, so that they are as independent as neighbours in a photograph can be.

JPEG decoders may differ by a grey level; the hash of the data says which pixels were used. A patch that occurs twice, such as an even piece of sky, is kept; training patches that equal a held-out one byte for byte are removed.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import DataSet, assemble
from bench.terminal.usage import UsageError

NAMES = ("china.jpg", "flower.jpg")
_BANDS = (384, 64, 192)
"""Columns of the parts train, tune and heldout, from left to right."""
_STRIDE = 4
_LEAST, _MOST = 2, 64
_SOURCE = "china.jpg by danielbuechele and flower.jpg by vultilion (flickr.com, CC BY 2.0), as carried by scikit-learn"


def photographs() -> list[Tensor]:
    """Both photographs, uint8 `[3, H, W]`.

    Raises:
        UsageError: scikit-learn carries them no longer.
    """
    import sklearn.datasets
    from PIL import Image

    folder = Path(sklearn.datasets.__file__).parent / "images"
    pictures = []
    for name in NAMES:
        try:
            with Image.open(folder / name) as image:
                array = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise UsageError(
                f"photos: {name} of scikit-learn cannot be read ({error}): install scikit-learn again"
            ) from error
        pictures.append(torch.from_numpy(array.copy()).permute(2, 0, 1))
    return pictures


def patches(region: Tensor, side: int, stride: int) -> Tensor:
    """All patches `[n, C, side, side]` of a region `[C, H, W]` that begin at multiples of `stride`."""
    windows = region.unfold(1, side, stride).unfold(
        2, side, stride
    )  # [C, rows, columns, side, side]
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, len(region), side, side).contiguous()


def load_photos(side: int) -> DataSet:
    """`photos:N`.

    Raises:
        UsageError: a side that no band holds, or photographs that cannot be read.
    """
    if not _LEAST <= side <= _MOST:
        raise UsageError(
            f"photos:{side}: the side of a patch lies in {_LEAST} … {_MOST}; try photos:8"
        )
    parts: list[list[Tensor]] = [[], [], []]
    for picture in photographs():
        for part, band, stride in zip(
            parts, picture.split(_BANDS, dim=2), (_STRIDE, side, side), strict=True
        ):
            part.append(patches(band, side, stride))
    train, tune, heldout = (torch.cat(part) for part in parts)
    return assemble(
        f"photos:{side}",
        train,
        tune,
        heldout,
        levels=256,
        source=_SOURCE,
        provenance="as carried by scikit-learn",
    )
