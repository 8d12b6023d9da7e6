"""Full disks, deleted folders, kills: an existing good file is never destroyed, nothing half-written rests, one line says why."""

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.job.training_run import COLUMNS, Plan, _trim_log
from bench.terminal import files
from bench.terminal.files import FileNotWrittenError, replacing, sweep, write_text
from bench.terminal.usage import UsageError, alone_in, writable_file

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).parents[2]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "partial" in path.name)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, told: str) -> None:  # fmt: skip
    place = tmp_path / "a.json"
    place.write_text("good")

    def fail(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(FileNotWrittenError, match=f"cannot write .*a.json.*{told}.*is kept"):
        write_text(place, "new")
    assert place.read_text() == "good"
    assert leftovers(tmp_path) == []


def test_a_disk_that_is_full_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """The kernel itself refuses: no file of the process may exceed 10,000 bytes."""
    place = tmp_path / "a"
    place.write_bytes(b"good")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(FileNotWrittenError, match="larger than the system allows"):
            files.write_bytes(place, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert place.read_bytes() == b"good"
    assert leftovers(tmp_path) == []


def test_a_deleted_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotWrittenError, match="its folder is not there any more"):
        write_text(tmp_path / "gone" / "a", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotWrittenError, match="its folder is a file"):
        write_text(tmp_path / "file" / "a", "x")


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    write_text("/dev/null", "x")
    assert not Path("/dev/null").is_file()
    with pytest.raises(FileNotWrittenError, match="the disk is full"):
        write_text("/dev/full", "x")
    with pytest.raises(FileNotWrittenError, match="it is a folder"):
        write_text(tmp_path, "x")


def test_an_exception_in_the_block_replaces_nothing(tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.write_text("good")
    with contextlib.suppress(KeyboardInterrupt), replacing(place) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert place.read_text() == "good"
    assert leftovers(tmp_path) == []


def test_partial_files_of_dead_processes_are_swept_up_and_those_of_living_ones_are_not(
    tmp_path: Path,
) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead, living, young = (tmp_path / f".{n}.{p}.partial" for n, p in (("a", done.pid), ("b", os.getpid()), ("c", f"{done.pid}.0f")))  # fmt: skip
    for path in (dead, living, young):
        path.write_text("half")
    for path in (dead, living):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    sweep(tmp_path)
    assert leftovers(tmp_path) == [living.name, young.name]


def test_asking_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    writable_file(place, "--json")
    assert list(tmp_path.iterdir()) == []
    place.write_text("good")
    writable_file(place, "--json")
    assert place.read_text() == "good"
    with pytest.raises(UsageError, match="--json .*No such file"):
        writable_file(tmp_path / "gone" / "a", "--json")
    with pytest.raises(UsageError, match="--json .*directory"):
        writable_file(tmp_path, "--json")
    writable_file("/dev/null", "--json")


def test_json_that_cannot_be_written_keeps_the_old_one_and_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    place = tmp_path / "weights.json"
    assert main(["verify", "--law", "I9", "--json", str(place)]) == 0
    good = place.read_text()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    capsys.readouterr()
    assert main(["verify", "--law", "I9", "--json", str(place)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("ddpm-bench: cannot write")
    assert place.read_text() == good
    assert json.loads(good)["laws"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "end", ["", "3,0.", "3,0.5,0.1", "\n\n", "\0\0\0", "x,y,z,u,v\n", "²,1,1,1,0\n"]
)
def test_a_torn_last_line_of_the_log_is_cut_off(tmp_path: Path, end: str) -> None:
    whole = f"{','.join(COLUMNS)}\n1,0.5,0.1,1.0,0\n2,0.4,0.1,1.0,0\n"
    (tmp_path / "log.csv").write_text(whole + end)

    from ddpm_ref.config import TrainConfig

    _trim_log(Plan(TrainConfig(steps=5), tmp_path, resume=True), 3)
    assert (tmp_path / "log.csv").read_text().splitlines() == whole.splitlines()


def test_two_runs_into_one_folder_are_told(tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom bench.terminal.usage import alone_in\nwith alone_in({str(tmp_path)!r}):\n    print('in', flush=True); sys.stdin.read()"  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(UsageError, match="another run is writing to"), alone_in(tmp_path):
            pass
        other.kill()
    with alone_in(tmp_path):
        pass
