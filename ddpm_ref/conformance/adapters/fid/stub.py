r"""What stands in the place of the Inception network, and what the adapters of FID libraries share.

The stub's 64 features are area averages on 8 × 8 places of one weighted channel,

    f(x) = pool₈ₓ₈ (½ x_R + 0.3 x_G + 0.2 x_B),     x on 0 … 1,

and like a network with batch normalization it depends on the batch while it is in training mode.

**Resizing.** Only torch-fidelity resizes as the published network does; what another library does instead is a declared `Convention`. Its reading
takes the library's own interpolation out and puts TensorFlow's in, so that nothing but exactly that interpolation is excused.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from ddpm_ref.conformance.adapters.instruments import installed_version
from ddpm_ref.conformance.implementation import Convention, Implementation, NotOffered
from ddpm_ref.conformance.lawbook.frechet import like_tensorflow
from ddpm_ref.conformance.setting import Setting

FEATURES = 64
SIDE = 299
_CHANNELS = (0.5, 0.3, 0.2)
Resize = Callable[[Tensor], Tensor]


class Pooled(nn.Module):
    """The stub: floats 0 … 1 or bytes, `[N, 3, H, W]` → `[N, 64]`, float64."""

    num_features = FEATURES

    def forward(self, images: Tensor) -> Tensor:
        """Features; in training mode minus the batch's mean."""
        unit = images.double() / (255 if images.dtype == torch.uint8 else 1)
        weights = torch.tensor(_CHANNELS, dtype=torch.float64)[:, None, None]
        found = adaptive_avg_pool2d((weights * unit).sum(1), 8).flatten(1)
        return found - found.mean(0) if self.training else found


class Shown(Exception):  # noqa: N818 - it carries an answer
    """Raised by `FirstLayer` with what it was shown."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images


class FirstLayer(nn.Module):
    """A convolution of three channels that stops the network and hands out its input."""

    def forward(self, images: Tensor) -> Tensor:
        """Never returns."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise NotOffered(f"a network for {images.shape[1]} channels: it takes 3")
        raise Shown(images)


def bare(kind: type[nn.Module], **attributes: object) -> nn.Module:
    """A network of the library's class without its weights: only what its `forward` reads before the first layer."""
    network = kind.__new__(kind)
    nn.Module.__init__(network)
    for name, value in attributes.items():
        setattr(network, name, value)
    return network.eval()


def shown(call: Callable[[], object]) -> Tensor:
    """What reaches the first layer when `call` runs."""
    try:
        call()
    except Shown as found:
        return found.images
    raise RuntimeError(
        "the first layer was not reached: the library calls its network by another name"
    )


def as_bytes(images: Tensor) -> Tensor:
    """uint8 `[N, 3, H, W]` of images on the 8-bit lattice of [−1, 1]; grey ones in three equal channels."""
    levels = ((images.double() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1).contiguous()


@contextmanager
def files(images: Tensor) -> Iterator[list[Path]]:
    """uint8 images `[N, C, H, W]` as PNG files, C = 1 or 3."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        found = []
        for index, image in enumerate(images):
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            found.append(Path(folder) / f"{index:05d}.png")
            Image.fromarray(pixels.contiguous().numpy()).save(found[-1])
        yield found


class FidLibrary(Implementation):
    """What the adapters share: no schedules, distances of whole sets by the same call as in batches."""

    distribution = ""

    def __init__(self) -> None:
        self.version = installed_version(self.distribution)

    def settings(self) -> Sequence[Setting]:
        """It knows no schedule."""
        return ()

    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        """Each set in one batch."""
        return self.frechet_in_batches(real, generated, max(len(real), len(generated)))


# ------------------------------------------------------------------------------------------------ resizing


def half_pixel(images: Tensor) -> Tensor:
    """torch's bilinear with half-pixel centres; for small images the same with and without antialiasing."""
    return interpolate(images.double(), (SIDE, SIDE), mode="bilinear", align_corners=False)


class HalfPixel(Implementation):
    """Reads a library that resizes with half-pixel centres."""

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """As if it had interpolated like TensorFlow."""
        return reread(super().network_input, images, form, half_pixel)


def reread(
    plain: Callable[[Tensor, str], Tensor], images: Tensor, form: str, resize: Resize
) -> Tensor:
    """What the network is shown with the library's interpolation replaced by TensorFlow's, in the library's own range."""

    def mean(level: int) -> Tensor:
        found: Tensor = plain(torch.full_like(images, level), form).double()
        return found.mean((0, 2, 3), keepdim=True)

    black, white = mean(0), mean(255)
    change: Tensor = (like_tensorflow(images) - resize(images)) / 255
    return plain(images, form).double() + (white - black) * change


def half_pixel_convention(source: str) -> Convention:
    """The declaration that goes with `HalfPixel`."""
    return Convention(
        "half-pixel centres",
        "bilinear to 299 × 299 reads output pixel i at (i + ½)·H/299 − ½, where the published network reads it at i·H/299",
        source,
        HalfPixel,
        ("I23-resize",),
    )


def unit(images: Tensor) -> Tensor:
    """Floats k/255."""
    return images.float() / 255


def refused(form: str, **ways: Any) -> Any:
    """The way to hand over a form of images, or NotOffered."""
    if form not in ways:
        raise NotOffered(f"images as {form}: it takes {' or '.join(ways)}")
    return ways[form]
