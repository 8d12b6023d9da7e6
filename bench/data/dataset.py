r"""A data set as the study sees it: three parts without overlap, a scale, a lattice and a hash.

**Scale.** An image with `levels` grey values k = 0 … levels−1 becomes

    x = 2k/(levels−1) − 1  ∈ [−1, 1],                                                               (1)

so that neighbouring grey values lie 2/(levels−1) apart, which is the bin width of the discretized decoder.
Continuous data have `levels = None` and are scored by the Gaussian decoder.

**Parts.** `train` fits the networks, `tune` chooses learning rates, `heldout` gives the figures that are reported;
nothing is chosen by looking at it. Where a publisher fixed a test set, it is the held-out part. Elsewhere an image's own bytes
decide: images are ordered by their SHA-256, and the first n are held out. That is random with respect to content,
equal on every platform and independent of file order.

**Leakage.** An image of `train` or `tune` that equals a held-out one byte for byte is removed, and counted.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.terminal.usage import UsageError


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images on [−1, 1] in three parts, with what a record must say about them.

    Attributes:
        name: the name that the command line uses.
        train: float32 `[N, C, H, W]`, or vectors `[N, D]`; the networks see only these.
        tune: likewise, M of them; learning rates are chosen on these.
        heldout: likewise, K of them; all reported figures come from these.
        levels: number of grey values, eq. (1), or None for continuous data.
        sha256: of all parts' exact contents in order, hexadecimal.
        source: who made the data, where they are described, under which licence.
        provenance: how the bytes were checked.
        removed: images removed because they equal a held-out one.
        oracle: the exact distribution where the data are synthetic (an `Oracle` of `ddpm_ref`).
    """

    name: str
    train: Tensor
    tune: Tensor
    heldout: Tensor
    levels: int | None
    sha256: str
    source: str
    provenance: str
    removed: int = 0
    oracle: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, `(C, H, W)`, or of one vector, `(D,)`."""
        return tuple(self.train.shape[1:])

    @property
    def decoder(self) -> str:
        """The decoder under which bits/dim of these data mean something."""
        return "gaussian" if self.levels is None else "discretized"

    def describe(self) -> dict[str, Any]:
        """What a record keeps: JSON values only."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "levels": self.levels,
            "train": len(self.train),
            "tune": len(self.tune),
            "heldout": len(self.heldout),
            "removed": self.removed,
            "sha256": self.sha256,
            "source": self.source,
            "provenance": self.provenance,
        }


def from_levels(grey: Tensor, levels: int) -> Tensor:
    """Grey values 0 … levels−1 to float32 on [−1, 1], eq. (1); any shape."""
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high >= levels:
        raise ValueError(
            f"grey value {low if low < 0 else high} lies outside 0 … {levels - 1}: "
            "levels counts the grey values of the data set (256 for 8-bit images)"
        )
    return (grey.double() * (2 / (levels - 1)) - 1).float()


def digests(images: Tensor) -> list[bytes]:
    """SHA-256 of each image's bytes; images `[N, …]` of any dtype."""
    rows = images[:, None].flatten(1).numpy()
    return [hashlib.sha256(row.tobytes()).digest() for row in rows]


def content_hash(*parts: Tensor) -> str:
    """SHA-256 over shapes, dtypes and bytes of the parts, hexadecimal."""
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{tuple(part.shape)} {part.dtype};".encode())
        total.update(part.contiguous().numpy().tobytes())
    return total.hexdigest()


def split_by_content(images: Tensor, *, heldout: int, tune: int) -> tuple[Tensor, Tensor, Tensor]:
    """Train, tune and held-out images, chosen by the SHA-256 of each image's own bytes.

    Args:
        images: `[N, …]`.
        heldout: number of held-out images.
        tune: number of images for choosing learning rates.

    Raises:
        ValueError: nothing would be left to train on.
    """
    if heldout + tune >= len(images):
        raise ValueError(
            f"{len(images)} images cannot give {heldout} held-out and {tune} tuning images and "
            "still leave some to train on: add images"
        )
    keys = digests(images)
    order = torch.tensor(sorted(range(len(keys)), key=lambda index: (keys[index], index)))
    return images[order[heldout + tune :]], images[order[heldout:][:tune]], images[order[:heldout]]


def without(images: Tensor, others: Tensor) -> Tensor:
    """The images that are not, byte for byte, among the others."""
    seen = set(digests(others))
    keep = torch.tensor([digest not in seen for digest in digests(images)], dtype=torch.bool)
    return images[keep]


def assemble(
    name: str,
    train: Tensor,
    tune: Tensor,
    heldout: Tensor,
    *,
    levels: int,
    source: str,
    provenance: str,
) -> DataSet:
    """A `DataSet` from grey values: leakage removed, scaled by eq. (1), hashed.

    Args:
        name: the data set's name.
        train: integer grey values `[N, C, H, W]`.
        tune: likewise `[M, C, H, W]`.
        heldout: likewise `[K, C, H, W]`.
        levels: number of grey values.
        source: attribution.
        provenance: how the bytes were checked.

    Raises:
        UsageError: no part is left to train on, to tune on or to hold out.
    """
    clean_tune = without(tune, heldout)
    clean_train = without(without(train, heldout), clean_tune)
    for part, left in (("train", clean_train), ("tune", clean_tune), ("heldout", heldout)):
        if len(left) == 0:
            raise UsageError(
                f"{name}: no image is left for the part {part!r} once duplicates of held-out images are removed: add different ones"
            )
    return DataSet(
        name=name,
        train=from_levels(clean_train, levels),
        tune=from_levels(clean_tune, levels),
        heldout=from_levels(heldout, levels),
        levels=levels,
        sha256=content_hash(clean_train, clean_tune, heldout),
        source=source,
        provenance=provenance,
        removed=len(train) + len(tune) - len(clean_train) - len(clean_tune),
    )
