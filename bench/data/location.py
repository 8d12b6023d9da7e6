"""Where data sets are looked for, and what to do when they are not there.

Nothing is downloaded unless asked for (`--download`): a benchmark that quietly fetches its data cannot say what it ran on.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.terminal.usage import UsageError


class NotThereError(UsageError):
    """Files of a data set that could be fetched."""


# Below the given directory, ./data (torchvision's habit), and where Debian keeps packaged data sets.
_ROOTS = (Path("data"), Path("/usr/share/datasets"), Path("/usr/share"))


def candidates(root: Path | None, places: Sequence[str]) -> list[Path]:
    """Directories to look in, nearest first: the given one and its usual subfolders, or the usual roots."""
    roots = [root] if root is not None else list(_ROOTS)
    below = [base / place for base in roots for place in places]
    return ([root] if root is not None else []) + below


def first_that_has(
    root: Path | None, places: Sequence[str], complete: Callable[[Path], bool]
) -> Path | None:
    """The first candidate directory that is complete, or None."""
    return next((folder for folder in candidates(root, places) if complete(folder)), None)


def remedy(name: str, root: Path | None, places: Sequence[str], files: str) -> str:
    """One line: which files were looked for, where, and how to get the data set."""
    looked = ", ".join(str(folder) for folder in candidates(root, places))
    return (
        f"{name} ({files}) is not in any of: {looked}; fetch it with --download where there is a network, "
        "or name its directory with --data-dir"
    )


def check_memory(name: str, numbers: int) -> None:
    """So many numbers fit into memory as float32, told before hours are spent or the system ends the process.

    Raises:
        UsageError: they do not.
    """
    needed = 4 * numbers
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UsageError(
            f"{name}: {numbers:,} pixel values need {needed / 2**30:.1f} GiB as float32, this machine has {memory / 2**30:.1f}: "
            "take fewer or smaller images"
        )


def refuse_few(name: str, file: str, count: int, aside: int) -> None:
    """A training file that holds more images than are set aside.

    Raises:
        UsageError: it does not.
    """
    if count <= aside:
        raise UsageError(
            f"{name}: {file} holds {count} images; more than {aside} are needed, since {aside} of them are set aside for tuning: "
            "use the whole file, or folder:PATH for a small set of your own"
        )
