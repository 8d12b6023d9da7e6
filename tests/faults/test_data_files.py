"""MNIST's and CIFAR-10's files under all their names and forms: read right, or one line; a hostile pickle runs nothing."""

import gzip
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest

from bench.data import load
from bench.data.array_pickle import RefusedError, images_of
from bench.data.cifar import load_cifar10, read_binary, read_pickle
from bench.data.idx import TEST, TRAIN, load_idx, read_idx
from bench.terminal.usage import UsageError
from ddpm_ref.config import TrainConfig
from ddpm_ref.trainer import train

pytestmark = pytest.mark.any_torch


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return header + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def write_idx(
    folder: Path, train_name: str, test_name: str, size: tuple[int, int] = (5, 7)
) -> None:
    for name, array in ((train_name, pixels(29, *size)), (test_name, pixels(11, *size, seed=1))):
        content = idx_bytes(array)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


# ---------------------------------------------------------------- IDX

NAMES = ("{}-images-idx3-ubyte", "{}-images.idx3-ubyte", "{0}-images-idx3-ubyte/{0}-images-idx3-ubyte",
         "{0}-images.idx3-ubyte/{0}-images.idx3-ubyte")  # fmt: skip


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("names", NAMES)
def test_mnist_is_found_under_all_names_that_go_round(
    tmp_path: Path, names: str, packed: str
) -> None:
    if "/" in names and packed:
        pytest.skip("unpacked into folders only")
    write_idx(tmp_path, names.format("train") + packed, names.format("t10k") + packed)
    data = load_idx("mnist", tmp_path, tune=3)
    assert (len(data.train), len(data.tune), len(data.heldout)) == (26, 3, 11)


def test_what_is_looked_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{TRAIN}.gz and {TEST}.gz"):
        load("mnist", tmp_path)
    with pytest.raises(UsageError, match="data_batch_1 … data_batch_5 and test_batch"):
        load("cifar10", tmp_path)


def test_training_and_test_images_of_two_sizes_are_two_data_sets(tmp_path: Path) -> None:
    write_idx(tmp_path, TRAIN, TEST)
    (tmp_path / TEST).write_bytes(idx_bytes(pixels(11, 7, 5)))
    with pytest.raises(UsageError, match=r"\(5, 7\) but .* has \(7, 5\): .* two data sets"):
        load_idx("mnist", tmp_path, tune=3)


def test_sets_too_small_to_set_images_aside_are_told(tmp_path: Path) -> None:
    write_idx(tmp_path, TRAIN, TEST)
    with pytest.raises(UsageError, match=f"{TRAIN} holds 29 images; more than 1000 are needed"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("array", [pixels(4), pixels(3, 4), pixels(3, 0, 4), pixels(1, 5, 7), pixels(2, 3, 5, 7)], ids=lambda a: str(a.shape))  # fmt: skip
def test_arrays_that_hold_no_images_are_the_wrong_file(tmp_path: Path, array: np.ndarray) -> None:
    write_idx(tmp_path, TRAIN, TEST)
    (tmp_path / TRAIN).write_bytes(idx_bytes(array))
    with pytest.raises(UsageError, match=r"expected \[N, H, W\]: wrong file"):
        load_idx("mnist", tmp_path, tune=3)


def test_duplicates_of_the_test_images_leave_nothing_to_train_on(tmp_path: Path) -> None:
    write_idx(tmp_path, TRAIN, TEST)
    (tmp_path / TEST).write_bytes(idx_bytes(pixels(29, 5, 7)))
    with pytest.raises(UsageError, match="no image is left for the part 'train'"):
        load_idx("mnist", tmp_path, tune=3)


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    """1 GB of zeros behind a header of 4 × 5 × 7: one byte more than the header says is read."""
    zeros = gzip.compress(bytes(2**20)) * 1000  # members in a row: a valid gzip file
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(pixels(4, 5, 7))) + zeros)
    with pytest.raises(UsageError, match=r"holds more values where its header says \(4, 5, 7\)"):
        read_idx(tmp_path / "a.gz")
    (tmp_path / "b").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    with pytest.raises(UsageError, match="GiB as float32, this machine has"):
        read_idx(tmp_path / "b")


def test_flipped_bits_of_a_gzipped_file_are_found(tmp_path: Path) -> None:
    whole = gzip.compress(idx_bytes(pixels(9, 5, 7)), mtime=0)
    array, rng, found = pixels(9, 5, 7), np.random.default_rng(3), 0
    for _ in range(200):
        broken = bytearray(whole)
        broken[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.gz").write_bytes(broken)
        try:
            assert np.array_equal(
                read_idx(tmp_path / "a.gz").numpy(), array
            )  # a flip in gzip's own header
        except UsageError:
            found += 1
    assert found > 180


# ---------------------------------------------------------------- CIFAR-10


@pytest.mark.parametrize("key", [b"data", "data"], ids=repr)
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_of_every_protocol_with_keys_of_either_kind(
    protocol: int, key: object, order: str
) -> None:
    array = pixels(7, 3072)
    batch = {
        key: np.array(array, order=order),
        b"labels": [1] * 7,
        "names": ["a", b"b", 1.5, None, (True,)],
    }
    assert np.array_equal(images_of(pickle.dumps(batch, protocol=protocol)), array)


def test_a_batch_as_python_2_wrote_it() -> None:
    """The published form: numpy.core, byte strings, protocol 2; assembled instruction by instruction."""
    array = pixels(5, 3072)
    raw = array.tobytes()
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01K\x05M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", len(raw)) + raw + b"tbu."
    )  # fmt: skip
    pickletools.dis(content, out=io.StringIO())  # it is a pickle
    assert np.array_equal(images_of(content), array)


class Reduced:
    def __init__(self, *steps: object) -> None:
        self.steps = steps

    def __reduce__(self) -> object:
        return self.steps


def pickled(
    *, shape: object = (2, 3072), dtype: str = "u1", size: int = 2 * 3072, fortran: object = False
) -> bytes:
    """A batch whose array states what it likes to BUILD."""
    from numpy._core.multiarray import _reconstruct

    state = (1, shape, np.dtype(dtype), fortran, bytes(size))
    return pickle.dumps(
        {b"data": Reduced(_reconstruct, (np.ndarray, (0,), b"b"), state)}, protocol=2
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickled(dtype="O"), "not an array of uint8"),
        (pickled(dtype="f8", size=16 * 3072), "not an array of uint8"),
        (pickled(shape=(10**15, 3072)), "another number of bytes than its shape"),
        (pickled(shape=(-2, 3072)), "expected"),
        (pickled(shape=(0, 3072), size=0), "expected"),
        (pickled(shape=(True, 3072), size=3072), "expected"),
        (pickled(shape=(3072,), size=3072), "expected"),
        (pickled(shape=[2, 3072]), "expected"),
        (pickled(size=5), "another number of bytes"),
        (pickle.dumps({b"data": [1, 2]}), "not an array"),
        (pickle.dumps({b"other": 1}), "no dictionary with the key 'data'"),
        (pickle.dumps([b"data"]), "no dictionary"),
        (b"", ""),
        (b"\x80\x04.", ""),
        (pickle.dumps({b"data": pixels(2, 3072)})[:-7], ""),
    ],
)  # fmt: skip
def test_arrays_that_are_not_what_they_say_are_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(
        UsageError, match=f"test_batch is not a CIFAR-10 batch .*{message}.*fetch it again"
    ):
        read_pickle(tmp_path / "test_batch")


HOSTILE = {
    "a call": pickle.dumps({b"data": Reduced(os.system, ("true",))}),
    "an attribute of numpy": b"\x80\x04\x8c\x05numpy\x8c\x08fromfile\x93\x8c\x01a\x85R.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
    "a new object": pickle.dumps(Path("a"), protocol=4).replace(b"R", b"\x81"),
    "an old-style instance": b"(i__main__\nA\n.",
    "an object": b"(cnumpy\nndarray\no.",
    "a persistent name": b"Pname\n.",
    "an extension": b"\x82\x01.",
    "a memo of 2**31 entries": b"]r\xff\xff\xff\x7f.",
    "attributes of a function": b"c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.",
    "other text than latin1": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00rottR.",
    "next buffer": b"\x80\x05\x97.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_batch_needs_is_refused_before_it_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "test_batch").write_bytes(HOSTILE[name])
    with pytest.raises(
        UsageError, match="test_batch is refused: it asks for .*no CIFAR-10 batch needs"
    ):
        read_pickle(tmp_path / "test_batch")


def test_no_build_reaches_a_numpy_object() -> None:
    """NumPy's own types are never made: BUILD on the class, on the dtype and on an instance changes stand-ins only."""
    for content in (
        b"cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.",
        b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.",
    ):
        with pytest.raises((TypeError, ValueError, RefusedError)):
            images_of(content)
    assert not hasattr(np.ndarray, "a")
    assert not hasattr(np.dtype, "a")


def test_batches_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.bin cannot be read"):
        read_binary(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="0 bytes, not a multiple"):
        read_binary(tmp_path / "a.bin")
    (tmp_path / "test_batch.bin").mkdir()
    with pytest.raises(UsageError, match="cifar10 .*is not in any of"):
        load_cifar10(tmp_path)


def test_small_copies_of_cifar_are_told(tmp_path: Path) -> None:
    for stem in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (tmp_path / stem).write_bytes(pickle.dumps({"data": pixels(2, 3072)}, protocol=5))
    with pytest.raises(UsageError, match="holds 10 images; more than 1000 are needed"):
        load("cifar10", tmp_path)


# ---------------------------------------------------------------- sizes that a network cannot halve


@pytest.mark.parametrize("size", [(5, 8), (8, 5), (1, 1), (7, 7)])
def test_sizes_that_cannot_be_halved_are_refused_when_training_is_asked_for(
    size: tuple[int, int],
) -> None:
    import torch

    with pytest.raises(
        ValueError, match=rf"images of {size[0]} x {size[1]} pixels cannot be halved"
    ):
        train(
            TrainConfig(steps=1, batch_size=2, network_options={"base": 8}),
            torch.zeros(4, 1, *size),
        )
