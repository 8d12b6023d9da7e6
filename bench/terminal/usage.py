"""Errors of use: one clear line with the remedy, exit status 2, no traceback.

An error of use is something that the reader of the message can mend: a misspelt name, a folder
that cannot be written, a package that is not installed. Everything else is a defect of this
program and keeps its traceback.
"""

import difflib
import errno
import math
import os
import stat
import sysconfig
import tempfile
import traceback
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.terminal.files import sweep


class UsageError(Exception):
    """A mistake in how the program was called: its one line names value, rule and remedy."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, together with what is finished and where it lies (one or more lines)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: the same as Ctrl-C, from another program."""


@contextmanager
def on_interrupt(describe: Callable[[], str]) -> Iterator[None]:
    """Inside the block Ctrl-C becomes `Interrupted(describe())`: what is done and where it lies.

    An `Interrupted` from further inside passes unchanged: the innermost block knows best.
    """
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        raise Interrupted(describe()) from stop


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in `known`, with the nearest names first.

    Args:
        kind: what the name stands for, such as "data set".
        name: what was given.
        known: the names that exist; all are listed when none is near.
    """
    return UsageError(_unknown_text(kind, name, known))


def one_of(kind: str, known: Iterable[str]) -> Callable[[str], str]:
    """An argparse `type=` that accepts the names in `known` and otherwise names the nearest."""
    names = tuple(known)

    def check(name: str) -> str:
        if name not in names:
            raise ArgumentTypeError(_unknown_text(kind, name, names))
        return name

    return check


def at_least(minimum: int) -> Callable[[str], int]:
    """An argparse `type=` for whole numbers that are not below `minimum`."""

    def check(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{text[:40]!r} is not a whole number") from None
        if value < minimum:
            raise ArgumentTypeError(f"{text[:40]} is too small: the least is {minimum}")
        if value > _MOST:
            raise ArgumentTypeError(f"{text[:40]} is too large: the most is {_MOST}")
        return value

    return check


_MOST = (1 << 63) - 1  # what a tensor can count


def above_zero(text: str) -> float:
    """An argparse `type=` for finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(
            f"{text[:40]!r}: write seconds, a finite number above 0 such as 3600"
        )
    return value


def writable_directory(path: str | os.PathLike[str], option: str = "--out") -> Path:
    """Create `path` (with parents) where needed, prove that a file can be written there, return it.

    Called before hours of work, so that the work is not lost at its end.

    Args:
        path: the folder.
        option: which option named it, for the message.

    Raises:
        UsageError: `path` is a file, cannot be created or cannot be written.
    """
    directory = at_home(path, option)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"cannot write to {str(path)!r}: {reason}; choose another folder with {option}"
        ) from error
    return directory


def writable_file(path: str | os.PathLike[str], option: str) -> Path:
    """`path`, proven to be writable before the work and left as it is: what is there stays, and nothing is created.

    Args:
        path: the file that an option names.
        option: that option, for the message.

    Raises:
        UsageError: it is a folder, its folder does not exist, or it cannot be written.
    """
    file = at_home(path, option)
    if _waits(file):
        raise UsageError(
            f"{option} {path}: it is a pipe, which would wait for a reader; give a file, or - for standard output where that is offered"
        )
    try:
        if os.path.isdir(file):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if os.path.exists(file):
            file.open("ab").close()
        if not os.path.exists(file) or os.path.isfile(file):
            with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(file))):
                pass
    except OSError as error:
        raise UsageError(
            f"{option} {path}: cannot be written: {error.strerror}; choose another place"
        ) from error
    return file


def at_home(path: str | os.PathLike[str], what: str = "a file or folder") -> Path:
    """`~` and `~NAME` as a shell reads them: a name that nobody has stands for itself, where pathlib raises.

    Args:
        path: the name.
        what: what it names, for the message.

    Raises:
        UsageError: it is empty, which would mean the working directory.
    """
    if not os.fspath(path):
        raise UsageError(f"the name given for {what} is empty: is a variable of the shell not set?")
    return Path(os.path.expanduser(path))


def _waits(file: Path) -> bool:
    """A pipe with a name of its own; those that a shell makes, /dev/fd/63, have their reader."""
    try:
        named = not os.fspath(file).startswith(("/dev/", "/proc/"))
        return named and stat.S_ISFIFO(file.stat().st_mode)
    except OSError:
        return False


@contextmanager
def alone_in(directory: Path, option: str = "--out") -> Iterator[None]:
    """Inside the block no other process that asks for the same may write to the folder.

    The lock is on the folder itself and ends with the process, however it ends; where the file system has none, nothing is locked.

    Raises:
        UsageError: another process is in such a block.
    """
    import fcntl  # does not exist outside POSIX systems, where --help must still work

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another run is writing to {str(directory)!r}: wait for it, or choose another folder with {option}"
            ) from error
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(descriptor)


def readable_file(path: str | os.PathLike[str]) -> Path:
    """`path` as a `Path`, checked to be a file.

    Raises:
        UsageError: there is no such file.
    """
    file = at_home(path)
    if not os.path.isfile(file):
        what = "does not exist"
        if os.path.exists(file):
            what = "is a folder" if os.path.isdir(file) else "is a pipe or a device"
        raise UsageError(f"cannot read {str(path)!r}: it {what}; give the path of a file")
    return file


def missing_package(module: str) -> UsageError:
    """The error for an import that failed because a package is not installed, with its remedy."""
    top = module.partition(".")[0]
    package = _PACKAGE_OF.get(top, top)
    remedy = "'diffusion-objective-bench[bench]'" if package in _IN_BENCH else package
    return UsageError(
        f"this needs the Python package {package!r}, which is not installed here; "
        f"remedy: python -m pip install {remedy}"
    )


def in_words(error: BaseException) -> str:
    """Type, text and line of what somebody's own code raised: `KeyError: 'weights' (model.py:12)`.

    The line is the innermost in a file that is neither installed nor ours.
    """
    kind, text = type(error).__name__, _text_of(error)
    if isinstance(error, SyntaxError):
        return f"{kind}: {text}"  # which ends with file and line
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    place = "".join(f" ({Path(f.filename).name}:{f.lineno})" for f in theirs[-1:])
    return f"{kind}: {text}{place}" if text else f"{kind}{place}"


def _text_of(error: BaseException) -> str:
    """What it says, which may be code that fails."""
    try:
        return str(error)
    except Exception as worse:
        return f"its message cannot be read, {type(worse).__name__}"


_NOT_THEIRS = (
    "<frozen",
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    *(str(Path(__file__).parents[2] / name) + os.sep for name in ("bench", "ddpm_ref")),
)


def _unknown_text(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"unknown {kind} {name!r}; {hint}"


# The packages of the extra `bench` that are imported: tests/test_declared.py compares with pyproject.toml.
_IN_BENCH = frozenset(
    {
        "jinja2",
        "matplotlib",
        "pillow",
        "pytest",
        "pytest-benchmark",
        "scikit-learn",
        "torch-fidelity",
        "torchmetrics",
        "torchvision",
        "tqdm",
    }
)

# Where the name that is imported and the name that is installed differ.
_PACKAGE_OF = {
    "PIL": "pillow",
    "denoising_diffusion_pytorch": "denoising-diffusion-pytorch",
    "flow_matching": "flow-matching",
    "pytest_benchmark": "pytest-benchmark",
    "sklearn": "scikit-learn",
}
