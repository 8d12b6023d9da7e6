"""Small pictures inside a record: bytes, packed and written as text."""

import base64
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def encode(images: "Tensor") -> dict[str, Any]:
    """uint8 images `[N, C, H, W]` as JSON values: shape, and zlib-packed bytes in base64."""
    packed = zlib.compress(images.cpu().contiguous().numpy().tobytes(), 9)
    return {"shape": list(images.shape), "zlib_base64": base64.b64encode(packed).decode("ascii")}


def decode(picture: dict[str, Any]) -> NDArray[np.uint8]:
    """The images that `encode` was given, uint8 `[N, C, H, W]`.

    Raises:
        ValueError: bytes and shape do not belong together.
    """
    raw = zlib.decompress(base64.b64decode(picture["zlib_base64"]))
    if len(raw) != math.prod(picture["shape"]):
        raise ValueError(
            f"{len(raw)} bytes do not fill the shape {picture['shape']}: damaged picture"
        )
    return np.frombuffer(raw, dtype=np.uint8).reshape(picture["shape"])


def tiled(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Images `[N, C, H, W]` as one sheet, `[rows·(H+1)+1, columns·(W+1)+1]` or with a last axis of 3 colours.

    A line of one pixel separates neighbours; cells without an image stay dark.
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), dtype=np.uint8)
    for index, image in enumerate(images):
        top = (index // columns) * (height + 1) + 1
        left = (index % columns) * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet[:, :, 0] if channels == 1 else sheet
