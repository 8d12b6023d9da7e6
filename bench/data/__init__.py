"""Data for the bench: real images where they are found, synthetic ones whose distribution is known exactly.

| name | what | held out | levels |
|---|---|---|---|
| `digits` | 1,797 real 8×8 scans (scikit-learn carries them) | 500 by content hash | 17 |
| `fashion-mnist`, `mnist` | 28×28 grey images from IDX files | the publisher's 10,000 | 256 |
| `cifar10` | 32×32 colour images, Python or binary batches | the publisher's 10,000 | 256 |
| `folder:PATH` | a user's images, all of one size | 15 % by content hash | 256 |
| `array:FILE.npy`, `.npz` | a user's arrays, bytes or floats on [−1, 1] | 15 % by content hash | 256 or – |
| `gaussian`, `mixture` | smooth random fields, 8×8, continuous | 500 | – |
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.data.dataset import DataSet, assemble, split_by_content
from bench.terminal.usage import unknown

__all__ = ["LOADERS", "DataSet", "load", "without_path"]

_DIGITS_HELDOUT, _DIGITS_TUNE = 500, 100
_OWN = ("folder", "array")
_DIGITS_SOURCE = (
    "Optical Recognition of Handwritten Digits, Alpaydin and Kaynak 1998, UCI Machine Learning "
    "Repository (CC BY 4.0), the test half as carried by scikit-learn"
)


def _digits(_root: Path | None) -> DataSet:
    from ddpm_ref.data import digits

    grey = ((digits() + 1) * 8).round().byte()
    return assemble(
        "digits",
        *split_by_content(grey, heldout=_DIGITS_HELDOUT, tune=_DIGITS_TUNE),
        levels=17,
        source=_DIGITS_SOURCE,
        provenance="as embedded in scikit-learn",
    )


def _mnist(root: Path | None) -> DataSet:
    from bench.data.idx import load_idx

    return load_idx("mnist", root)


def _fashion_mnist(root: Path | None) -> DataSet:
    from bench.data.idx import load_idx

    return load_idx("fashion-mnist", root)


def _cifar10(root: Path | None) -> DataSet:
    from bench.data.cifar import load_cifar10

    return load_cifar10(root)


def _gaussian(_root: Path | None) -> DataSet:
    from bench.data.synthetic import load_gaussian

    return load_gaussian()


def _mixture(_root: Path | None) -> DataSet:
    from bench.data.synthetic import load_mixture

    return load_mixture()


LOADERS: Mapping[str, Callable[[Path | None], DataSet]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "gaussian": _gaussian,
    "mixture": _mixture,
}


def load(name: str, root: Path | None = None) -> DataSet:
    """The data set of that name, on [−1, 1] and split.

    Args:
        name: one of `LOADERS`, `folder:PATH` or `array:FILE`.
        root: directory with the files of `mnist`, `fashion-mnist` or `cifar10`; None: the usual places.

    Raises:
        UsageError: an unknown name, or files that are missing or damaged, with the remedy.
    """
    if name.startswith("folder:"):
        from bench.data.folder import load_folder

        return load_folder(Path(name.removeprefix("folder:")).expanduser())
    if name.startswith("array:"):
        from bench.data.array_file import load_array

        return load_array(Path(name.removeprefix("array:")).expanduser())
    if name not in LOADERS:
        raise unknown("data set", name, [*LOADERS, "folder:PATH", "array:FILE.npy"])
    return LOADERS[name](root)


def without_path(name: str) -> str:
    """The name as a record may state it: a user's own folder stays out."""
    kind, colon, _ = name.partition(":")
    return f"{kind}:PATH" if colon and kind in _OWN else name
