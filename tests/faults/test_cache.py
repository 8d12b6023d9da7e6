"""The cache of compiled libraries: what is damaged is built again, what somebody else may have made is never loaded."""

import ctypes
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_ref.kernels import build, native

ROOT = Path(__file__).parents[2]
OTHER = 12345  # a user who is not this one
pytestmark = pytest.mark.skipif(
    native.unavailable() is not None, reason=f"native: {native.unavailable()}"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")


def small() -> build.Recipe:
    """The baseline alone: a quick real build."""
    objects = (("rows.cpp", ("-DDDPM_ROWS=ddpm_rows_baseline", "-O0")),)
    compilers = native.recipe().compilers
    return build.Recipe("small", compilers, objects, ("-std=c++17", "-fPIC", "-w"), ())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes, bytes]:
    """Name, content and record of a library that was built once."""
    place = tmp_path_factory.mktemp("sound")
    build.load(small(), place)
    (library,) = place.glob("*.so")
    return library.name, library.read_bytes(), build._record_of(library).read_bytes()


def keep(place: Path, sound: tuple[str, bytes, bytes]) -> Path:
    """The same library in another cache, as the user's own."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = place / sound[0]
    library.write_bytes(sound[1])
    library.chmod(0o700)
    build._record_of(library).write_bytes(sound[2])
    return library


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where libraries were built during the test."""
    made: list[Path] = []
    run = build._build
    monkeypatch.setattr(build, "_build", lambda *given: (made.append(given[2].parent), run(*given)))
    return made


def test_a_sound_library_is_loaded_as_it_is(tmp_path: Path, sound, builds: list[Path]) -> None:
    keep(tmp_path, sound)
    build.load(small(), tmp_path)
    assert builds == []


DAMAGES = {
    "cut short": lambda p: p.write_bytes(p.read_bytes()[: len(p.read_bytes()) // 2]),
    "empty": lambda p: p.write_bytes(b""),
    "one bit": lambda p: p.write_bytes(p.read_bytes()[:5000] + bytes([p.read_bytes()[5000] ^ 1]) + p.read_bytes()[5001:]),
    "no record": lambda p: build._record_of(p).unlink(),
    "empty record": lambda p: build._record_of(p).write_bytes(b""),
    "record of bytes": lambda p: build._record_of(p).write_bytes(b"\xff\xfe"),
    "writable by others": lambda p: p.chmod(0o722),
    "writable by the group": lambda p: p.chmod(0o720),
    "a link": lambda p: (p.rename(p.with_name("elsewhere")), p.symlink_to("elsewhere")),
    "a pipe": lambda p: (p.unlink(), os.mkfifo(p)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_sound_is_built_again(
    tmp_path: Path, sound, builds: list[Path], damage: str
) -> None:
    library = keep(tmp_path, sound)
    DAMAGES[damage](library)
    assert build.load(small(), tmp_path).ddpm_rows_baseline
    assert builds == [tmp_path]
    assert build._is_sound(library)
    assert stat.S_ISREG(library.lstat().st_mode)


def test_a_folder_in_the_place_of_the_library_is_a_reason(tmp_path: Path, sound) -> None:
    library = keep(tmp_path, sound)
    library.unlink()
    (library / "in").mkdir(parents=True)
    with pytest.raises(build.BuildError, match="cannot be kept"):
        build.load(small(), tmp_path)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_directory_that_others_may_write_is_no_cache(tmp_path: Path, sound, mode: int) -> None:
    place = tmp_path / "open"
    keep(place, sound)
    place.chmod(mode)
    with pytest.raises(build.BuildError, match=r"open can be changed by other users \(chmod go-w"):
        build.load(small(), place)


def test_neither_is_one_below_a_directory_that_others_may_write(tmp_path: Path, sound) -> None:
    above = tmp_path / "open"
    keep(above / "own", sound)
    above.chmod(0o777)
    with pytest.raises(build.BuildError, match="open can be changed by other users"):
        build.load(small(), above / "own")
    above.chmod(0o1777)  # as /tmp: what is in it can be renamed by its owner only
    build.load(small(), above / "own")


def test_the_next_place_serves_where_the_first_is_open(tmp_path: Path, sound, builds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    keep(tmp_path / "open", sound)
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setattr(build, "_places", lambda cache: [tmp_path / "open", tmp_path / "second"])
    build.load(small())
    assert builds == [tmp_path / "second"]


@as_root
@pytest.mark.parametrize("owned", ["library", "directory", "above"])
def test_what_belongs_to_another_user_is_not_loaded(
    tmp_path: Path, sound, builds: list[Path], owned: str
) -> None:
    """Run by root, whom the file modes do not stop: the owner alone decides."""
    library = keep(tmp_path / "above" / "place", sound)
    os.chown(
        {"library": library, "directory": library.parent, "above": library.parents[1]}[owned],
        OTHER,
        OTHER,
    )
    if owned == "library":
        build.load(small(), library.parent)
        assert builds == [library.parent]
    else:
        with pytest.raises(build.BuildError, match="belongs to another user"):
            build.load(small(), library.parent)
        assert builds == []


@as_root
def test_code_that_another_user_planted_does_not_run(tmp_path: Path, sound) -> None:
    """A library whose constructor leaves a mark, under the right name, with a record that fits."""
    import hashlib

    witness = tmp_path / "ran"
    source = tmp_path / "planted.c"
    source.write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) void f(void) {{ fclose(fopen("{witness}", "w")); }}'
    )
    planted = keep(tmp_path / "cache", sound)
    subprocess.run(
        [build._compiler(small()), "-x", "c", "-shared", "-fPIC", str(source), "-o", str(planted)],
        check=True,
    )
    build._record_of(planted).write_text(hashlib.sha256(planted.read_bytes()).hexdigest())
    os.chown(planted, OTHER, OTHER)
    build.load(small(), planted.parent)
    assert not witness.exists()
    ctypes.CDLL(str(tmp_path / "cache" / sound[0]))
    assert not witness.exists()


def test_a_full_disk_is_a_reason_and_leaves_nothing_that_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build.os, "fsync", full)
    with pytest.raises(
        build.BuildError, match=r"'small' cannot be kept: .*No space left on device"
    ):
        build.load(small(), tmp_path)
    assert list(tmp_path.glob("*.so")) == []
    assert list(tmp_path.glob("building-*")) == []


def test_what_a_killed_build_left_is_swept_up(tmp_path: Path, sound) -> None:
    left = tmp_path / f"building-{sound[0]}-abandoned"
    (left / "in").mkdir(parents=True)
    build.load(small(), tmp_path)
    assert not left.exists()


def test_a_damaged_cache_does_not_end_later_processes(tmp_path: Path) -> None:
    """The fault as it was met: the library of the native provider cut short, then any command: SIGBUS, status −7."""
    program = (
        "import torch\nfrom ddpm_ref.kernels import fused_q_sample\nfrom ddpm_ref.noise import NoiseStream\n"
        "from ddpm_ref.schedule import linear_schedule\n"
        "x_t, eps = fused_q_sample(torch.ones(2, 3), torch.tensor([1, 2]), linear_schedule(5), NoiseStream(0), step=0, provider='native')\n"
        "print(x_t.tolist())"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
        (library,) = (tmp_path / "ddpm_ref").glob("native-*.so")
        library.write_bytes(library.read_bytes()[:20000])
    assert found[0] == found[1]


def test_without_a_place_the_definition_serves_and_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    (tmp_path / "tmp").write_text("a file")
    program = (
        "import tempfile, torch\nfrom ddpm_ref.kernels import fused_q_sample, q_sample_providers, build\n"
        f"build.tempfile.tempdir = {str(tmp_path / 'tmp')!r}\n"
        "from ddpm_ref.noise import NoiseStream\nfrom ddpm_ref.schedule import linear_schedule\n"
        "fused_q_sample(torch.ones(2, 3), torch.tensor([1, 2]), linear_schedule(5), NoiseStream(0), step=0)\n"
        "print(q_sample_providers()['native'])"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "can be changed by other users" in done.stdout
