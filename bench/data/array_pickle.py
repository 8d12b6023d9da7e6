r"""The one array in a CIFAR-10 pickle, read without running anything that the file asks for.

A pickle is a program. Two locks, either of which would do for honest files:

1. **Instructions.** Only those that build dictionaries, lists, tuples, numbers, text and bytes and the calls below; every
   memo index is one that the program could have reached, so that none reserves memory for billions of entries.
2. **Names.** The five that rebuild a NumPy array resolve to *stand-ins* that keep what they are given. NumPy's own `__setstate__`
   (instruction BUILD), which trusts its argument with a dtype, a shape and a buffer, is never called: the array is made afterwards,
   from bytes that were checked.

NumPy writes an array as `_reconstruct(ndarray, (0,), b"b")` with the state (version, shape, dtype, Fortran order, bytes) up to
protocol 4, as `_frombuffer(bytes, dtype, shape, order)` from protocol 5 on.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INSTRUCTIONS = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "POP",
        "POP_MARK",
        "MEMOIZE",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "BUILD",
    ]
)
_MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class RefusedError(Exception):
    """The pickle asks for something that no CIFAR-10 batch needs."""


class _Stated:
    """Stands in for a NumPy object: keeps what a pickle would have it be."""

    def __init__(self, *given: object) -> None:
        self.given = given
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Array(_Stated):
    """For `numpy.ndarray`."""


class _Dtype(_Stated):
    """For `numpy.dtype`."""

    @property
    def is_byte(self) -> bool:
        return bool(self.given) and self.given[0] in ("u1", "|u1", b"u1", b"|u1")


class _Call:
    """A function that a pickle may call and, unlike a plain one, not set attributes of."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *given: object) -> object:
        return self._function(*given)

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a change of a function")


def _frombuffer(buffer: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", buffer)
    return array


def _encode(text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("_codecs.encode of something else than latin1 text")
    return text.encode("latin1")


def _empty(*given: object) -> bytes:
    """How it writes none at all; with a number, `bytes` would make as many."""
    if given:
        raise RefusedError("bytes of something")
    return b""


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _Call(_frombuffer),
    ("numpy._core.numeric", "_frombuffer"): _Call(_frombuffer),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Call(_encode),
    ("__builtin__", "bytes"): _Call(_empty),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise RefusedError(f"{module}.{name}")
        return _STAND_INS[module, name]


def images_of(content: bytes) -> NDArray[np.uint8]:
    """The uint8 array `[N, 3072]` under the key `data` (bytes or text) of a pickled dictionary.

    Raises:
        RefusedError: an instruction or a name outside the lists above.
        ValueError: not a dictionary with such an array.
        Exception: whatever `pickle` raises on damaged bytes.
    """
    _check_instructions(content)
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(batch, dict) or not ({b"data", "data"} & batch.keys()):
        raise ValueError("it holds no dictionary with the key 'data'")
    return _made(batch[b"data"] if b"data" in batch else batch["data"])


def _check_instructions(content: bytes) -> None:
    for number, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        if instruction.name not in _INSTRUCTIONS:
            raise RefusedError(f"the instruction {instruction.name}")
        if instruction.name in _MEMO and not 0 <= int(argument or 0) <= number:
            raise RefusedError(f"a memo of {argument} entries")


def _made(found: object) -> NDArray[np.uint8]:
    """The array that a stand-in describes."""
    state = found.state if isinstance(found, _Array) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("'data' is not an array")
    _, shape, dtype, fortran, buffer = state
    if not isinstance(dtype, _Dtype) or not dtype.is_byte:
        raise ValueError("'data' is not an array of uint8")
    if (
        not isinstance(shape, tuple)
        or len(shape) != 2
        or shape[1] != 3072
        or not _is_size(shape[0])
    ):
        raise ValueError(f"'data' has shape {shape}, expected [N, 3072]")
    if not isinstance(buffer, bytes | bytearray) or len(buffer) != math.prod(shape):
        raise ValueError("'data' has another number of bytes than its shape says")
    return np.frombuffer(buffer, np.uint8).reshape(shape, order="F" if fortran else "C")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
