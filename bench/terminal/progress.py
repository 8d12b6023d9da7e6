"""Progress: a bar with the time left on a terminal, one line now and then anywhere else.

A log file is read afterwards, so there a bar would be noise: the first line comes after `_FIRST`
seconds, and each pause is twice as long as the one before, up to `LONGEST` seconds.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol, TextIO, TypeVar

Item = TypeVar("Item")

_FIRST = 5.0
"""Seconds of silence before the first line in a log."""
LONGEST = 60.0
"""Longest pause between two lines in a log, in seconds."""


class Meter(Protocol):
    """What a long task tells about itself."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """`steps` more are done; `note` is shown beside them, such as "loss 0.031"."""


def progress(
    iterable: Iterable[Item],
    *,
    total: int | None = None,
    label: str,
    stream: TextIO | None = None,
) -> Iterator[Item]:
    """Yield from `iterable` and show how far it has come.

    Args:
        iterable: what to go through.
        total: its length, where `len` does not know it; None leaves out the time left.
        label: what is being done.
        stream: standard error unless given.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with meter(total=total, label=label, stream=stream) as shown:
        for item in iterable:
            yield item
            shown.advance()


@contextmanager
def meter(
    *,
    total: int | None,
    label: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Meter]:
    """A `Meter` for work that is not a plain loop (several processes, several phases)."""
    stream = sys.stderr if stream is None else stream
    shown = _Bar(total, label, stream) if stream.isatty() else _Lines(total, label, stream, clock)
    try:
        yield shown
    finally:
        shown.close()


def duration(seconds: float) -> str:
    """Seconds as people say them: `8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class _Bar:
    def __init__(self, total: int | None, label: str, stream: TextIO) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc=label, file=stream, dynamic_ncols=True, leave=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(steps)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(
        self, total: int | None, label: str, stream: TextIO, clock: Callable[[], float]
    ) -> None:
        self._total, self._label, self._stream, self._clock = total, label, stream, clock
        self._start = clock()
        self._pause = _FIRST
        self._next = self._start + self._pause
        self._done = 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        now = self._clock()
        if now < self._next or self._done == self._total:
            return
        self._say(now, note)
        self._pause = min(2 * self._pause, LONGEST)
        self._next = now + self._pause

    def close(self) -> None:
        elapsed = self._clock() - self._start
        if elapsed >= _FIRST:
            of = f" of {self._total}" if self._total and self._done < self._total else ""
            self._write(f"{self._label}: {self._done}{of} in {duration(elapsed)}")

    def _say(self, now: float, note: str) -> None:
        parts = [f"{self._label}: {self._done}"]
        if self._total:
            left = (now - self._start) / max(self._done, 1) * (self._total - self._done)
            parts = [f"{self._label}: {self._done}/{self._total}", f"{duration(left)} left"]
        self._write(", ".join([*parts, note] if note else parts))

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
