"""Published data sets from their publishers, through torchvision: its addresses, its checksums, its progress bar.

Only what the readers here need is fetched, and torchvision reads nothing of it: CIFAR-10 is a pickle, which could run code. What is there
already and has the right MD5 is not fetched again.
"""

import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

from bench.terminal.usage import UsageError, writable_directory

_PLACE = Path("data")
"""Where files go unless a directory is named; the loaders look there by themselves."""
_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}


def fetch(name: str, root: Path | None) -> None:
    """Download the files of one data set to where its loader finds them.

    Args:
        name: `mnist`, `fashion-mnist` or `cifar10`.
        root: the directory; None: `data` below the working directory.

    Raises:
        UsageError: no network, a file that is not what its publisher published, or a directory that cannot be written.
    """
    from torchvision import datasets

    folder = writable_directory(root or _PLACE, "--data-dir")
    kind = getattr(datasets, _CLASSES[name])
    try:
        if name == "cifar10":
            _fetch_archive(kind, folder)
        else:
            _fetch_images(kind, folder / kind.__name__ / "raw")
    except (URLError, OSError, RuntimeError, tarfile.TarError) as error:
        raise UsageError(
            f"{name} could not be downloaded ({error}): try again where there is a network, or copy the files to {folder}"
        ) from error


def _fetch_archive(kind: Any, folder: Path) -> None:
    from torchvision.datasets.utils import download_url

    download_url(kind.url, folder, kind.filename, kind.tgz_md5)
    with tarfile.open(folder / kind.filename) as archive:
        archive.extractall(folder, filter="data")


def _fetch_images(kind: Any, folder: Path) -> None:
    for filename, md5 in kind.resources:
        if "images" in filename:
            _fetch_from_any(kind.mirrors, folder, filename, md5)


def _fetch_from_any(mirrors: list[str], folder: Path, filename: str, md5: str) -> None:
    """The file from the first mirror that has it; the last one's error where none has."""
    from torchvision.datasets.utils import download_url

    for mirror in mirrors[:-1]:
        try:
            download_url(f"{mirror}{filename}", folder, filename, md5)
        except (URLError, OSError, RuntimeError):
            continue
        return
    download_url(f"{mirrors[-1]}{filename}", folder, filename, md5)
