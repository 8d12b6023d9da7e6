"""Adapters that raise, hang, exhaust the memory or speak in half characters: that law has failed, the others run, and the JSON is whole."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.__main__ import main
from ddpm_ref.conformance.limit import LimitReachedError, within

ROOT = Path(__file__).parents[2]

USERS = """
import asyncio, time
import pytest, torch
from ddpm_ref.conformance import Implementation, NotOffered, Setting


class Base(Implementation):
    name = "mine"

    def settings(self):
        return (Setting("linear", 13),)

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        ratio = (log_var1 - log_var2).exp() + (mean1 - mean2) ** 2 * (-log_var2).exp()
        return 0.5 * (log_var2 - log_var1 + ratio - 1)


class Odd(BaseException):
    pass


class Mute(BaseException):
    def __str__(self):
        raise Odd


def raising(error):
    def q_sample(self, setting, x0, t, noise):
        raise error

    return q_sample


class OwnBaseException(Base):
    q_sample = raising(Odd("of my own"))

class Cancelled(Base):
    q_sample = raising(asyncio.CancelledError("stopped"))

class Generator(Base):
    q_sample = raising(GeneratorExit("closed"))

class Skipping(Base):
    # pytest's own way out is a BaseException: under a law it is a failure like any other, and skips no test
    q_sample = raising(pytest.skip.Exception("not today"))

class OutOfMemory(Base):
    q_sample = raising(MemoryError())

class MuteBaseException(Base):
    q_sample = raising(Mute())

class HalfPair(Base):
    q_sample = raising(RuntimeError("half \\ud800 a pair"))

class Longwinded(Base):
    q_sample = raising(RuntimeError("word " * 1_000_000))

class HalfName(Base):
    name = "mine \\udc80"

class HalfReason(Base):
    q_sample = raising(NotOffered("half \\ud800"))

class Thirsty(Base):
    def q_sample(self, setting, x0, t, noise):
        return torch.empty(1 << 50) + x0

class OddSettings(Base):
    def settings(self):
        raise Odd("no settings")

class GeneratorSettings(Base):
    def settings(self):
        raise GeneratorExit

class OddConstructor(Base):
    def __init__(self):
        raise Odd("not built")

class Loops(Base):
    def q_sample(self, setting, x0, t, noise):
        while True:
            pass

class Sleeps(Base):
    def q_sample(self, setting, x0, t, noise):
        time.sleep(1000)

class Swallows(Base):
    def q_sample(self, setting, x0, t, noise):
        try:
            time.sleep(1000)
        except BaseException:
            time.sleep(1000)

class SleepingSettings(Base):
    def settings(self):
        time.sleep(1000)
"""


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    file = tmp_path / "trying_adapter.py"
    file.write_text(USERS)
    return file


def verdict(file: Path, name: str, *more: str) -> tuple[int, dict[str, dict]]:
    """Exit status, and the first row of each law."""
    place = file.with_suffix(".json")
    laws = ["--law", "I1-marginal", "--law", "I9-kl"]
    status = main(["verify", *laws, "--against", f"{file}:{name}", "--json", str(place), *more])
    content = json.loads(place.read_bytes().decode())
    rows: dict[str, dict] = {}
    for row in content["laws"]:
        rows.setdefault(row["law"], row)
    return status, rows


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("OwnBaseException", "Odd: of my own (trying_adapter.py:"),
        ("Cancelled", "CancelledError: stopped"),
        ("Generator", "GeneratorExit: closed"),
        ("Skipping", "Skipped: not today"),
        ("OutOfMemory", "MemoryError"),
        ("MuteBaseException", "its message cannot be read, Odd"),
        ("HalfPair", "RuntimeError: half \\ud800 a pair"),
        ("Longwinded", "(4,999,999 characters)"),
        ("Thirsty", "RuntimeError"),
    ],
)
def test_whatever_a_method_raises_is_that_laws_failure(
    users_file: Path, name: str, said: str
) -> None:
    status, rows = verdict(users_file, name)
    assert status == 1
    assert rows["I1-marginal"]["status"] == "error"
    assert rows["I1-marginal"]["classification"] == "bug"
    assert said in rows["I1-marginal"]["message"]
    assert len(rows["I1-marginal"]["message"]) < 2000
    assert rows["I9-kl"]["status"] == "pass"


@pytest.mark.parametrize(("name", "status"), [("HalfName", 0), ("HalfReason", 0), ("OddSettings", 2), ("GeneratorSettings", 2)])  # fmt: skip
def test_names_reasons_and_settings_of_any_kind_leave_the_other_laws(
    users_file: Path, name: str, status: int
) -> None:
    found, rows = verdict(users_file, name)
    assert found == status
    assert rows["I9-kl"]["status"] == "pass"


def test_a_constructor_that_raises_anything_is_one_line(
    users_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--against", f"{users_file}:OddConstructor"]) == 2
    assert "cannot be built: Odd: not built (trying_adapter.py:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Loops", "Sleeps", "Swallows"])
def test_a_hang_is_told_and_the_next_law_runs(users_file: Path, name: str) -> None:
    began = time.monotonic()
    status, rows = verdict(users_file, name, "--limit", "1")
    assert status == 1
    assert rows["I1-marginal"]["status"] == "error"
    assert rows["I1-marginal"]["classification"] == "bug"
    said = rows["I1-marginal"]["message"]
    assert said.startswith("no answer within 1 s, interrupted at trying_adapter.py:")
    line = USERS.splitlines()[int(said.rpartition(":")[2]) - 1].strip()
    assert line in ("while True:", "pass", "time.sleep(1000)")
    assert rows["I9-kl"]["status"] == "pass"
    assert time.monotonic() - began < 60
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_settings_that_hang_do_not_cost_the_results(
    users_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.measure.laws import examine

    monkeypatch.setattr(examine, "_GLANCE", 0.5)
    status, rows = verdict(users_file, "SleepingSettings", "--limit", "1")
    assert status == 1
    assert "no answer within 1 s" in rows["I1-marginal"]["message"]
    assert rows["I9-kl"]["status"] == "pass"


def test_the_limit_leaves_no_trace_and_holds_in_the_main_thread_only() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with within(30), within(None), within(1e300):
        pass
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with pytest.raises(LimitReachedError, match=r"no answer within 0\.05 s, interrupted at test_adapters\.py:"), within(0.05):  # fmt: skip
        time.sleep(5)
    assert signal.getsignal(signal.SIGALRM) == before

    def elsewhere() -> None:
        with within(0.01):
            time.sleep(0.1)
        done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done == [True]


UNINTERRUPTIBLE = """
import itertools
from ddpm_ref.conformance import limit
limit._GRACE = 0.5
with limit.within(0.5):
    sum(itertools.repeat(0))
"""


def test_a_call_into_c_that_never_comes_back_ends_the_process_with_its_line() -> None:
    done = subprocess.run([sys.executable, "-c", UNINTERRUPTIBLE], cwd=ROOT, capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 6' in done.stderr
