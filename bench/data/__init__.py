"""Data for the bench: real images where they are found, synthetic ones whose distribution is known exactly.

| name | what | held out | levels |
|---|---|---|---|
| `digits` | 1,797 real 8×8 scans (scikit-learn carries them) | 500 by content hash | 17 |
| `fashion-mnist`, `mnist` | 28×28 grey images from IDX files | the publisher's 10,000 | 256 |
| `cifar10` | 32×32 colour images, Python or binary batches | the publisher's 10,000 | 256 |
| `folder:PATH` | a user's images, all of one size | 15 % by content hash | 256 |
| `array:FILE.npy`, `.npz` | a user's arrays, bytes or floats on [−1, 1] | 15 % by content hash | 256 or – |
| `fashion-mnist:16`, `:14` | the same, area-averaged to a side | the publisher's 10,000 | 256 |
| `photos:N` | colour patches of side N from two photographs | a region of each | 256 |
| `gaussian`, `mixture` | smooth random fields, 8×8, continuous | 500 | – |
| `spiral:D` | vectors in R^D on a spiral in a plane | 2,000 | – |
| `subspace:D` | Gaussian vectors in R^D on a subspace | 2,000 | – |
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.data.dataset import DataSet, assemble, split_by_content
from bench.terminal.usage import UsageError, at_home, unknown

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


def _fashion_mnist_of_side(side: int, root: Path | None) -> DataSet:
    from bench.data.resize import load_smaller

    return load_smaller("fashion-mnist", side, root)


def _photos(side: int, _root: Path | None) -> DataSet:
    from bench.data.photos import load_photos

    return load_photos(side)


def _spiral(size: int, _root: Path | None) -> DataSet:
    from bench.data.vectors import load_spiral

    return load_spiral(size)


def _subspace(size: int, _root: Path | None) -> DataSet:
    from bench.data.vectors import load_subspace

    return load_subspace(size)


LOADERS: Mapping[str, Callable[[Path | None], DataSet]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "gaussian": _gaussian,
    "mixture": _mixture,
}
"""Data sets by name."""

_SIZED: Mapping[str, Callable[[int, Path | None], DataSet]] = {
    "fashion-mnist": _fashion_mnist_of_side,
    "photos": _photos,
    "spiral": _spiral,
    "subspace": _subspace,
}
"""Data sets by the name before a colon and a number: `photos:8`."""


def load(name: str, root: Path | None = None, *, download: bool = False) -> DataSet:
    """The data set of that name, scaled and split: images on [−1, 1], or vectors.

    Args:
        name: one of `LOADERS`, one of `_SIZED` with its number, `folder:PATH` or `array:FILE`.
        root: directory with the files of `mnist`, `fashion-mnist` or `cifar10`; None: the usual places.
        download: fetch those files where they are missing.

    Raises:
        UsageError: an unknown name, or files that are missing or damaged, with the remedy.
    """
    from bench.data.location import NotThereError

    loader = _loader(name)
    try:
        return loader(root)
    except NotThereError:
        if not download:
            raise
    from bench.data.download import fetch

    fetch(name.partition(":")[0], root)
    return loader(root)


def _loader(name: str) -> Callable[[Path | None], DataSet]:
    """What loads the data set of that name from a root."""
    kind, colon, argument = name.partition(":")
    if kind == "folder" and colon:
        from bench.data.folder import load_folder

        return lambda _root: load_folder(at_home(argument))
    if kind == "array" and colon:
        from bench.data.array_file import load_array

        return lambda _root: load_array(at_home(argument))
    if name in LOADERS:
        return LOADERS[name]
    if kind not in _SIZED:
        others = [*(f"{kind}:N" for kind in _SIZED), "folder:PATH", "array:FILE.npy"]
        raise unknown("data set", name, [*LOADERS, *others])
    if not argument.isascii() or not argument.isdigit():
        raise UsageError(
            f"data set {name!r}: {kind}: is followed by a whole number, {kind}:16 for instance"
        )
    return lambda root: _SIZED[kind](int(argument), root)


def without_path(name: str) -> str:
    """The name as a record may state it: a user's own folder stays out."""
    kind, colon, _ = name.partition(":")
    return f"{kind}:PATH" if colon and kind in _OWN else name
