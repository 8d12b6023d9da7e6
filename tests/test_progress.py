"""A bar on a terminal; elsewhere few lines, further and further apart."""

import io

import pytest

from bench.terminal.progress import LONGEST, duration, meter, progress

pytestmark = pytest.mark.any_torch


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_yields_everything_and_stays_silent_when_quick():
    log = io.StringIO()
    assert list(progress(range(7), label="steps", stream=log)) == list(range(7))
    assert log.getvalue() == ""


def test_log_lines_are_rare_and_carry_the_time_left():
    log, clock = io.StringIO(), Clock()
    with meter(total=600, label="train", stream=log, clock=clock) as shown:
        for _ in range(600):
            clock.now += 1.0
            shown.advance(note="loss 0.5")
    lines = log.getvalue().splitlines()
    assert lines[0] == "train: 5/600, 9 min 55 s left, loss 0.5"
    assert lines[1].startswith("train: 15/600")  # the pause has doubled
    assert lines[-1] == "train: 600 in 10 min 00 s"
    assert len(lines) <= 5 + 600 / LONGEST


def test_unknown_total():
    log, clock = io.StringIO(), Clock()
    with meter(total=None, label="read", stream=log, clock=clock) as shown:
        clock.now = 6.0
        shown.advance(3)
    assert log.getvalue().splitlines() == ["read: 3", "read: 3 in 6 s"]


def _stop_halfway(log, clock):
    with meter(total=11, label="arms", stream=log, clock=clock) as shown:
        shown.advance(2)
        clock.now = 70.0
        raise KeyboardInterrupt


def test_stopped_halfway_says_how_far():
    log = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        _stop_halfway(log, Clock())
    assert log.getvalue().splitlines() == ["arms: 2 of 11 in 1 min 10 s"]


def test_bar_on_a_terminal():
    terminal = Terminal()
    assert list(progress(iter([2, 3, 5]), total=3, label="arms", stream=terminal)) == [2, 3, 5]
    assert "arms: 100%" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7503, "2 h 05 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
