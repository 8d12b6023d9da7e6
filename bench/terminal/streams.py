"""Standard output and error that cannot sink the work: results are kept first, and a stream that fails is told at the end.

not UTF-8          what it cannot show becomes `?`
closed (`>&-`)     nothing is shown
full, or a reader that has gone: the rest is dropped, the work goes on, and the exit status says so
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class _Forgiving(io.RawIOBase):
    """A raw stream that keeps its first error to itself and from then on takes everything and shows nothing."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__()
        self._raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        if self.error is None:
            try:
                return self._raw.write(data) or 0
            except OSError as error:
                self.error = error
        return len(data)


class _Kept(io.TextIOWrapper):
    """A stream that somebody else's code cannot close: what it is asked for is shown first, and more can follow."""

    def close(self) -> None:
        self.flush()


@contextmanager
def forgiving() -> Iterator[_Forgiving | None]:
    """Within the block standard output and error never raise; yields what became of the output (None where it is not a file).

    Only the interpreter's own streams are changed, and put back at the end.
    """
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    out, err = _wrapped(sys.stdout, sys.__stdout__), _wrapped(sys.stderr, sys.__stderr__)
    sys.stdout, sys.stderr = out[0], err[0]
    try:
        yield out[1]
    finally:
        for stream, kept in zip((sys.stdout, sys.stderr), (out, err), strict=True):
            if stream is kept[0]:
                stream.flush()
        sys.stdout, sys.stderr = before
        for stream, state in ((sys.stdout, out[1]), (sys.stderr, err[1])):
            if state is not None and state.error is not None and stream is not None:
                # Python flushes once more on its way out; give it somewhere to go.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fill_closed_descriptors() -> None:
    """A closed descriptor 0 … 2 would be given to the next file that is opened, into which others then print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _wrapped(stream: TextIO | None, own: TextIO | None) -> tuple[TextIO, _Forgiving | None]:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8"), None
    buffer = getattr(stream, "buffer", None)
    raw = getattr(
        buffer, "raw", buffer
    )  # unbuffered (python -u), the buffer is the raw stream itself
    if stream is not own or not isinstance(raw, io.FileIO):
        return stream, None  # a test's or a notebook's
    stream.flush()
    state = _Forgiving(raw)
    text = _Kept(
        io.BufferedWriter(cast(Any, state)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=raw.isatty() or own is sys.__stderr__,
    )
    return text, state
