"""Files that appear whole or not at all, and never at the price of the good one that was there.

What is written goes into a file beside its place, `.NAME.PID.RANDOM.partial`, is flushed to the disk (fsync) and takes the place by one
rename. Where anything fails, a full disk above all, the place is as it was and the partial file is gone; what a killed process left is
swept up, ten minutes later, by the next one that writes there.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

_PARTIAL = re.compile(r"\.(?P<name>.+?)\.(?P<process>\d+)\.([0-9a-f]+\.)?partial")
_OLD = 600.0  # seconds; a process of that number may live on another machine that shares the folder
_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota of the disk is used up; free some space",
    errno.EFBIG: "it would be larger than the system allows; free some space, or raise the limit",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "its folder is not there any more; make it again, or choose another place",
    errno.ENOTDIR: "its folder is a file; choose another place",
    errno.EISDIR: "it is a folder; choose another name",
    errno.EACCES: "permission denied; choose another place",
    errno.EPERM: "permission denied; choose another place",
}


class FileNotWrittenError(OSError):
    """A file could not be written: which, why, and what is left. What was there before is there still."""

    def __init__(self, path: "str | os.PathLike[str]", cause: OSError) -> None:
        reason = _CAUSES.get(cause.errno or 0, cause.strerror or str(cause))
        super().__init__(f"cannot write {str(path)!r}: {reason} (what was there before is kept)")
        self.errno = cause.errno


@contextlib.contextmanager
def replacing(path: "str | os.PathLike[str]") -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end of the block; a link's target is what is replaced.

    Raises:
        FileNotWrittenError: it cannot be written.
    """
    place = Path(os.path.expanduser(path))
    try:
        if place.exists() and not stat.S_ISREG(place.stat().st_mode):
            with place.open("wb") as file:  # a terminal, a pipe, /dev/null: nothing to replace
                yield file
            return
        place = Path(os.path.realpath(place))
        _sweep(place.parent, place.name)
        partial = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
        try:
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, place)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except FileNotWrittenError:
        raise
    except OSError as error:
        raise FileNotWrittenError(path, error) from error


def write_bytes(path: "str | os.PathLike[str]", content: bytes) -> None:
    """Put `content` into the place of `path`; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: "str | os.PathLike[str]", text: str) -> None:
    """Put `text` into the place of `path`, in UTF-8 with its own line ends; see `replacing`."""
    write_bytes(path, text.encode())


class Drawn(Protocol):
    """A figure of matplotlib."""

    def savefig(self, fname: BinaryIO, *, format: str, dpi: int) -> None:
        """Write itself to an open file."""


def write_picture(figure: Drawn, path: "str | os.PathLike[str]", dpi: int = 150) -> None:
    """Draw a figure into the place of `path`, whose ending names the kind of picture (none: PNG); see `replacing`."""
    with replacing(path) as file:
        figure.savefig(file, format=Path(path).suffix.removeprefix(".").lower() or "png", dpi=dpi)


def sweep(folder: "str | os.PathLike[str]") -> None:
    """Remove the partial files in a folder whose processes are gone."""
    _sweep(Path(folder), None)


def _sweep(folder: Path, name: str | None) -> None:
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.partial"):
            found = _PARTIAL.fullmatch(path.name)
            if found is None or name not in (None, found["name"]):
                continue
            if time.time() - path.stat().st_mtime > _OLD and not _alive(int(found["process"])):
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
