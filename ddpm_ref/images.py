"""Images that need not fit into memory: sets that are read while the training goes on, ahead of the step that needs them.

A set is what PyTorch's `Dataset` is, with a length and an item per index, each a floating-point tensor of one shape; two are here, and
`train` takes any other. Which images a step sees is decided by `ddpm_ref.batches` from the number of the step, not by a loader, so that
order and noise are those of a run in memory, and a run stops and goes on with other numbers of workers.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm_ref.validation import check_finite, check_floating

_READ_AT_ONCE = 256


@runtime_checkable
class ImageSet(Protocol):
    """Examples by number."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Tensor:
        """Example number `index`: `[C, H, W]` or `[D]`, floating point, in [−1, 1] where it is an image."""


class MappedImages(Dataset[Tensor]):
    """Images in one `.npy` file `[N, *dims]` that the system maps into memory, page by page, as they are read.

    8-bit images k become k/127.5 − 1; floating-point ones are taken as they are.

    Args:
        path: the file.

    Raises:
        ValueError: an array of another type, or of fewer than two dimensions.
        FileNotFoundError: no such file.
    """

    def __init__(self, path: str | Path) -> None:
        import numpy as np

        self.path = Path(path)
        self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        if self._array.ndim < 2 or self._array.dtype not in (np.uint8, np.float32, np.float64):
            raise ValueError(
                f"{self.path.name} holds {self._array.dtype} {list(self._array.shape)}; images are uint8, float32 or float64, "
                "[N, C, H, W] or [N, D]"
            )

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def __getitem__(self, index: int) -> Tensor:
        row = torch.from_numpy(self._array[index].copy())
        return row.float() / 127.5 - 1 if row.dtype == torch.uint8 else row.float()


class FolderImages(Dataset[Tensor]):
    """The images below a folder, read one by one with Pillow in the order of their relative paths, 8 bits a channel, on [−1, 1].

    Args:
        root: the folder.
        mode: `L` (grey) or `RGB`.
        suffixes: of the files that count.

    Raises:
        ValueError: the folder has none.
    """

    def __init__(
        self,
        root: str | Path,
        mode: str = "RGB",
        suffixes: Sequence[str] = (".png", ".jpg", ".jpeg"),
    ) -> None:
        self.root, self.mode = Path(root), mode
        self.files = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in suffixes)
        if not self.files:
            raise ValueError(
                f"{self.root} has no image; its files should end in {', '.join(suffixes)}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        import numpy as np
        from PIL import Image

        with Image.open(self.files[index]) as picture:
            pixels = torch.from_numpy(np.array(picture.convert(self.mode)))
        planes = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        return planes.float() / 127.5 - 1


def ahead(images: ImageSet, rows: Iterable[list[int]], workers: int = 0) -> Iterator[Tensor]:
    """The batches `[b, *dims]` of these row numbers in order, two of them read ahead by every worker process.

    Raises:
        RuntimeError: examples of more than one shape.
    """
    loader: DataLoader[Tensor] = DataLoader(
        images,  # type: ignore[arg-type]  # a Dataset is what has these two methods
        batch_sampler=rows,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    yield from loader


def checked_parts(images: ImageSet, workers: int = 0) -> Iterator[Tensor]:
    """All examples once, in order and in parts, each finite: one pass over a set before it is trained on."""
    size = len(images)
    rows = [
        list(range(first, min(first + _READ_AT_ONCE, size)))
        for first in range(0, size, _READ_AT_ONCE)
    ]
    for part in ahead(images, rows, workers):
        check_floating(data=part)
        check_finite(data=part)
        yield part
