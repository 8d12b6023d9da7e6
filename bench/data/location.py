"""Where data sets are looked for, and what to do when they are not there.

Nothing is downloaded here: a benchmark that quietly fetches its data cannot say what it ran on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

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


def remedy(name: str, root: Path | None, places: Sequence[str], torchvision_class: str) -> str:
    """One line: where was looked, and how to get the data set."""
    looked = ", ".join(str(folder) for folder in candidates(root, places))
    return (
        f"{name} is not in any of: {looked}; fetch it once with "
        f"python -c \"import torchvision; torchvision.datasets.{torchvision_class}('data', download=True)\" "
        "or name its directory with --data-dir"
    )
