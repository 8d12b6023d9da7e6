"""A time limit for code that is not ours: it is interrupted, the law is put down as unanswered, and the next one runs.

The operating system's interval timer interrupts Python, sleeps, locks and reads of the main thread by an exception that `except Exception` lets
pass; code that swallows it all the same is interrupted again each second. A single call into a C library cannot be interrupted: where one
does not come back, half a minute later the stack is printed and the process ended, so that no machine waits for ever.
"""

import faulthandler
import os
import signal
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 1.0  # seconds
_GRACE = 30.0  # seconds after the limit in which an interruption may still take effect
_LONGEST = 1e6  # seconds; a longer limit is none
_STANDARD_ERROR = 2
_INSTALLED = (sysconfig.get_path("stdlib"), "<")


class LimitReachedError(BaseException):
    """Code did not come back in time; `place` is the line at which it was interrupted."""

    def __init__(self, seconds: float, place: str) -> None:
        super().__init__(f"no answer within {seconds:g} s, interrupted at {place}")
        self.place = place


PASSING = (KeyboardInterrupt, LimitReachedError)
"""What is not the result of a call, and passes through whoever catches all that other people's code raises."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Interrupt the block after so many seconds of real time; None, and anywhere but in the main thread of a POSIX system, never.

    Raises:
        LimitReachedError: it took longer.
    """
    if seconds is None or seconds > _LONGEST or not _interruptible():
        yield
        return
    running = True

    def reached(number: int, frame: FrameType | None) -> None:
        del number
        if running:
            raise LimitReachedError(seconds, _place(frame))

    before = signal.signal(signal.SIGALRM, reached)
    try:
        # This one needs neither the interpreter nor its lock.
        faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=_STANDARD_ERROR)
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
        try:
            yield
        finally:
            running = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _interruptible() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _place(frame: FrameType | None) -> str:
    """File and line of the interrupted code: the innermost that is not a library's."""
    while frame is not None and frame.f_back is not None and _installed(frame):
        frame = frame.f_back
    if frame is None:
        return "no line"
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _installed(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return "site-packages" in file or file.startswith(_INSTALLED)
