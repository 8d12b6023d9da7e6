"""Compile a shared library once and keep it: the cache that the native and the CUDA provider share.

A library's file name holds a hash of all that it is made from (sources, commands, compiler version), so nothing is ever
stale. It is built in a temporary directory beside its place, flushed to the disk and moved there by one atomic rename, under a
file lock: an interrupted or failing build leaves nothing behind that could be loaded, and two processes build once between them.

A library runs as the user, and a damaged one ends the process by a signal. So before it is loaded,

    its directory and all above    belong to the user or the system, and nobody else can rename in them,
    the file                       is a regular one that the same holds for,
    its content                    has the SHA-256 that was written down beside it when it was built;

what fails is built again, elsewhere if need be, and where that fails too the reason is told and other providers serve.
"""

import contextlib
import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "source"
_TIME_LIMIT = 300.0  # seconds for one compiler call; the usual one takes two
_NOBODY = 65534  # how the system's own directories look from inside a user namespace


class BuildError(RuntimeError):
    """Why a library could not be built or loaded, in one line."""


@dataclass(frozen=True)
class Recipe:
    """How a shared library is made.

    Attributes:
        name: stem of the library's file name.
        compilers: names or paths of the compilers to try, best first.
        objects: for each object file the source and its own options.
        options: options of every compilation.
        link: options of the link step.
    """

    name: str
    compilers: tuple[str, ...]
    objects: tuple[tuple[str, tuple[str, ...]], ...]
    options: tuple[str, ...]
    link: tuple[str, ...]


def load(recipe: Recipe, cache: Path | None = None) -> ctypes.CDLL:
    """The library of a recipe: from the cache, or built now.

    Args:
        recipe: what to build.
        cache: directory of built libraries; the default is the user's own place for caches (`XDG_CACHE_HOME`), and a directory of the user's
            own below the system's temporary one where that cannot be written.

    Raises:
        BuildError: no compiler, a failing compiler, no place that only the user can change, a full disk, or a library that
            cannot be loaded.
    """
    try:
        path = _built(recipe, cache)
    except OSError as error:
        raise BuildError(f"the library {recipe.name!r} cannot be kept: {error}") from error
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} does not load: {error}") from error


def _cache_directory() -> Path:
    """The platform's place for caches: `$XDG_CACHE_HOME` or `~/.cache` (macOS: `~/Library/Caches`), `/ddpm_ref`."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ddpm_ref"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ddpm_ref"


def _built(recipe: Recipe, cache: Path | None) -> Path:
    if os.name != "posix":
        raise BuildError("libraries are built on POSIX systems only")
    compiler = _compiler(recipe)
    name = f"{recipe.name}-{_key(recipe, compiler)}.so"
    places = _places(cache)
    for place in places:
        if _is_sound(place / name) and _distrust(place) is None:
            return place / name
    place = _writable(places)
    with _lock(place / f"{name}.lock"):
        if not _is_sound(place / name):
            for abandoned in place.glob(f"building-{name}-*"):  # by a process that was killed
                shutil.rmtree(abandoned, ignore_errors=True)
            _build(recipe, compiler, place / name)
    return place / name


def _compiler(recipe: Recipe) -> str:
    for name in recipe.compilers:
        found = shutil.which(name)
        if found:
            return found
    raise BuildError(f"no compiler: none of {', '.join(recipe.compilers)} is on PATH; install one")


def _key(recipe: Recipe, compiler: str) -> str:
    digest = hashlib.sha256(_run([compiler, "--version"]).encode())
    digest.update(repr((recipe, sys.platform, os.uname().machine)).encode())
    for path in sorted(SOURCE.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def _places(cache: Path | None) -> list[Path]:
    if cache is not None:
        return [cache]
    temporary = Path(tempfile.gettempdir()) / f"ddpm_ref-{os.getuid()}"
    try:
        return [_cache_directory(), temporary]
    except RuntimeError:  # a user without a home
        return [temporary]


def _writable(places: Sequence[Path]) -> Path:
    reasons = []
    for place in places:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            reasons.append(str(error))
            continue
        reason = _distrust(place)
        if reason is None:
            return place
        reasons.append(reason)
    raise BuildError(f"no directory for built libraries: {'; '.join(reasons)}")


def _distrust(place: Path) -> str | None:
    """Why somebody else can replace what lies in a directory, or None: never load what they can."""
    for folder in (place.resolve(), *place.resolve().parents):
        status = folder.stat()
        owners = (0, os.getuid()) if folder == place.resolve() else (0, os.getuid(), _NOBODY)
        sticky = folder != place.resolve() and status.st_mode & stat.S_ISVTX
        if status.st_uid not in owners:
            return f"{folder} belongs to another user"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            return f"{folder} can be changed by other users (chmod go-w {folder})"
    return None


def _is_sound(library: Path) -> bool:
    """Whether the file is the one that was built here, and only the user or the system can change it."""
    try:
        descriptor = os.open(library, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.getuid()):
                return False
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False
            built = _record_of(library).read_text(encoding="ascii")
            return built == hashlib.sha256(file.read()).hexdigest()
    except (OSError, ValueError):
        return False


def _record_of(library: Path) -> Path:
    """Where the SHA-256 of a library's content is kept."""
    return library.with_name(f"{library.name}.sha256")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    import fcntl  # does not exist outside POSIX systems, where this module must still import

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released with the file, also when the process dies
        yield


def _build(recipe: Recipe, compiler: str, target: Path) -> None:
    prefix = f"building-{target.name}-"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as directory:
        objects = [f"{directory}/{number}.o" for number in range(len(recipe.objects))]
        commands = [
            [compiler, *recipe.options, *own, "-c", str(SOURCE / source), "-o", into]
            for (source, own), into in zip(recipe.objects, objects, strict=True)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, commands))
        library, record = Path(directory, "library.so"), Path(directory, "record")
        _run([compiler, *objects, "-shared", *recipe.link, "-o", str(library)])
        library.chmod(0o700)  # whatever the umask
        record.write_text(hashlib.sha256(library.read_bytes()).hexdigest(), encoding="ascii")
        for made, place in ((library, target), (record, _record_of(target))):
            with made.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(made, place)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{Path(command[0]).name} did not run: {error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise BuildError(
            f"{Path(command[0]).name} failed (status {done.returncode}): {lines[0].strip()[:300]}"
        )
    return done.stdout
