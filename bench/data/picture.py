r"""One image file of a user's, read right or refused: the gate through which all pictures of one's own come in.

What a likelihood is measured on must be what the file holds, so that nothing is guessed:

    8 bits, grey or RGB            as it is
    palette                        its colours; grey where all of them are grey
    16 bits, grey                  k ↦ round(255 k/65535), the nearest of 256 levels
    alpha that is opaque           dropped
    an EXIF orientation            turned as it says
    MPO (two views of a camera)    the first view, which is what a viewer shows

    transparency, CMYK and other colour spaces, 16 bits a channel in colour, 32-bit and floating-point values,
    several frames, damage, more pixels than Pillow's limit: refused, since each has no or more than one right answer.

`Picture.done` says what was done.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.terminal.usage import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_Pixels = NDArray[np.uint8]

_SIXTEEN_BIT = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_SCALED_TO_16_BITS = frozenset({"PNG", "PPM"})  # formats of which Pillow opens 16 bits as mode "I"
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_SEVERAL_VIEWS = "MPO"
_BITS_PER_SAMPLE = 258  # a TIFF tag
_ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class Picture:
    """The pixels of one file.

    Attributes:
        pixels: uint8 `[H, W]` (grey) or `[H, W, 3]` (RGB).
        done: what was done to get them, such as "turned as EXIF says"; empty for most.
    """

    pixels: _Pixels
    done: tuple[str, ...] = ()


def read_picture(path: Path, shown: str) -> Picture:
    """The picture in a file.

    Args:
        path: a regular file.
        shown: how messages call it.

    Raises:
        UsageError: it cannot be read, or holds what has no single right reading as 8-bit pixels; with the remedy.
    """
    from PIL import Image, ImageOps

    if not os.path.isfile(path):
        raise UsageError(
            f"folder: {shown} is not a regular file (or a link that leads nowhere): remove it"
        )
    # Opened by a handle: by name, Pillow 13 maps uncompressed TIFFs into memory and scrambles those that EXIF turns.
    with _one_line(shown), path.open("rb") as file:
        with Image.open(file) as unread:
            unread.verify()  # checksums, where the format has them
        file.seek(0)
        with Image.open(file) as image:
            _check_kind(image, path, shown)
            turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
            pixels, done = _pixels(ImageOps.exif_transpose(image), image.format, shown)
    return Picture(pixels, (*done, "turned as EXIF says") if turned else done)


@contextmanager
def _one_line(shown: str) -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes, which no decoder lists, becomes one line; so do Pillow's warnings."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (UsageError, KeyboardInterrupt):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UsageError(
            f"folder: {shown} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: resize it, or remove it"
        ) from error
    except MemoryError as error:
        raise UsageError(f"folder: {shown} does not fit into memory: resize it") from error
    except Exception as error:
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"folder: {shown} cannot be read ({cause}): remove it") from error


def _check_kind(image: "Image", path: Path, shown: str) -> None:
    """What is seen in the header: frames and bits."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != _SEVERAL_VIEWS:
        raise UsageError(
            f"folder: {shown} has {frames} frames (an animation or several pages): save the one that you mean"
        )
    if image.mode in {"RGB", "RGBA"} and _channel_bits(image, path) > 8:
        raise UsageError(
            f"folder: {shown} has 16 bits a channel, of which Pillow keeps the upper 8: convert it to 8 bits first"
        )


def _channel_bits(image: "Image", path: Path) -> int:
    """Bits of one channel as the file states them, 8 where the format has no others in colour."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[
                -1
            ]  # after the signature, IHDR: length, name, width, height, depth
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        return int(max(tags.get(_BITS_PER_SAMPLE, (8,))))
    return 8


def _pixels(image: "Image", file_format: str | None, shown: str) -> tuple[_Pixels, tuple[str, ...]]:
    """uint8 grey or RGB of a decoded image, and what was done."""
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and file_format in _SCALED_TO_16_BITS):
        return _eight_bits(np.asarray(image)), ("16-bit values rounded to 8 bits",)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if np.asarray(rgba)[..., 3].min() < 255:
            raise UsageError(
                f"folder: {shown} has transparent pixels, whose colour depends on the background: flatten it on one first"
            )
        grey = image.mode in {"L", "LA", "La"}
        return _array(rgba.convert("RGB"), grey or image.mode in {"P", "PA"}), (
            "opaque alpha dropped",
        )
    if image.mode in {"1", "L"}:
        return np.asarray(image.convert("L")), ()
    if image.mode == "P":
        return _array(image.convert("RGB"), grey_if_possible=True), ()
    if image.mode == "RGB":
        return np.asarray(image), ()
    raise UsageError(
        f"folder: {shown} has mode {image.mode} ({_KINDS.get(image.mode, 'not 8-bit grey or RGB')}): "
        "convert it to 8-bit grey or RGB first"
    )


_KINDS = {
    "I": "32-bit integers, whose white is stated nowhere",
    "F": "floating point, whose white is stated nowhere",
    "CMYK": "inks, whose colours depend on a profile",
    "YCbCr": "another colour space",
    "LAB": "another colour space",
    "HSV": "another colour space",
}


def _eight_bits(values: NDArray[np.generic]) -> _Pixels:
    """0 … 65535 to the nearest of 256 levels; 65535 = 255 · 257."""
    wide = values.astype(np.int64)
    return ((wide + 128) // 257).astype(np.uint8)


def _array(rgb: "Image", grey_if_possible: bool) -> _Pixels:
    """RGB pixels, or grey ones where all three channels agree and that is wanted."""
    array = np.asarray(rgb)
    equal = bool((array == array[..., :1]).all())
    return array[..., 0] if grey_if_possible and equal else array
