"""The loaders: true file formats written here byte by byte, splits without leakage, one-line errors."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import LOADERS, load
from bench.data.cifar import load_cifar10, read_binary, read_pickle
from bench.data.dataset import assemble, digests, from_levels, split_by_content
from bench.data.folder import load_folder
from bench.data.idx import TEST, TRAIN, load_idx, read_idx
from bench.terminal.usage import UsageError


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX format as its inventors describe it, written without the reader's help."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return header + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def write_mnist(directory: Path, train: np.ndarray, test: np.ndarray) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{TRAIN}.gz").write_bytes(gzip.compress(idx_bytes(train)))
    (directory / TEST).write_bytes(idx_bytes(test))


def write_cifar(directory: Path, images: dict[str, np.ndarray], *, binary: bool) -> None:
    directory.mkdir()
    for stem, array in images.items():
        flat = array.reshape(len(array), 3072)
        if binary:
            labels = np.full((len(array), 1), 7, dtype=np.uint8)
            (directory / f"{stem}.bin").write_bytes(np.hstack([labels, flat]).tobytes())
        else:
            batch = {b"data": flat, b"labels": [7] * len(array), b"batch_label": b"x"}
            (directory / stem).write_bytes(pickle.dumps(batch, protocol=2))


@pytest.fixture
def cifar_images() -> dict[str, np.ndarray]:
    stems = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    return {stem: pixels(5, 3, 32, 32, seed=k) for k, stem in enumerate(stems)}


class TestScaleAndSplit:
    @pytest.mark.parametrize("levels", [2, 17, 256])
    def test_every_grey_value_is_its_bin_centre(self, levels: int) -> None:
        grey = torch.arange(levels)
        exact = torch.tensor([2 * k / (levels - 1) - 1 for k in range(levels)], dtype=torch.float64)
        # one rounding to float32: half an ulp at 1
        assert (from_levels(grey, levels).double() - exact).abs().max() <= 2**-24

    def test_a_value_outside_the_lattice_is_named(self) -> None:
        with pytest.raises(ValueError, match="grey value 17 lies outside 0 … 16"):
            from_levels(torch.tensor([3, 17]), 17)

    def test_the_split_depends_on_content_and_not_on_order(self) -> None:
        images = torch.from_numpy(pixels(31, 1, 3, 5))
        shuffled = images[torch.randperm(31, generator=torch.Generator().manual_seed(1))]
        for part, other in zip(
            split_by_content(images, heldout=7, tune=3),
            split_by_content(shuffled, heldout=7, tune=3),
            strict=True,
        ):
            assert torch.equal(part, other)

    def test_every_image_lands_in_exactly_one_part(self) -> None:
        images = torch.from_numpy(pixels(31, 1, 3, 5))
        parts = split_by_content(images, heldout=7, tune=3)
        assert [len(part) for part in parts] == [21, 3, 7]
        assert sorted(digests(torch.cat(parts))) == sorted(digests(images))

    def test_copies_of_held_out_images_leave_the_training_set(self) -> None:
        held = torch.from_numpy(pixels(5, 1, 2, 3))
        train = torch.cat([torch.from_numpy(pixels(11, 1, 2, 3, seed=1)), held[:2]])
        tune = torch.cat([held[2:3], train[:1], torch.from_numpy(pixels(2, 1, 2, 3, seed=2))])
        data = assemble("x", train, tune, held, levels=256, source="", provenance="")
        assert (len(data.train), len(data.tune), len(data.heldout), data.removed) == (10, 3, 5, 4)
        assert not set(digests(data.train)) & set(digests(data.heldout))

    def test_too_few_images_to_split(self) -> None:
        with pytest.raises(ValueError, match="still leave some to train on"):
            split_by_content(torch.zeros(10, 1), heldout=7, tune=3)


class TestDigits:
    def test_all_scans_are_there_once_and_on_the_lattice(self) -> None:
        data = load("digits")
        assert (len(data.train), len(data.tune), len(data.heldout)) == (1197, 100, 500)
        assert (data.removed, data.levels, data.shape) == (0, 17, (1, 8, 8))
        everything = torch.cat([data.train, data.tune, data.heldout])
        assert len(set(digests(everything))) == 1797
        on_lattice = (everything.double() + 1) * 8
        assert torch.equal(on_lattice, on_lattice.round())

    def test_the_parts_resemble_each_other(self) -> None:
        data = load("digits")
        gap = (data.train.mean(0) - data.heldout.mean(0)).abs()
        everything = torch.cat([data.train, data.heldout])  # rare ink: one image may carry it all
        pooled = everything.std(0)
        error = pooled * (1 / 1197 + 1 / 500) ** 0.5
        assert (gap <= 4.5 * error + 1e-6).all()  # 64 pixels: 4.5 σ each happens once in 2300

    def test_loading_twice_gives_the_same_hash(self) -> None:
        assert load("digits").sha256 == load("digits").sha256


class TestIdx:
    def test_gzipped_and_plain_files_hold_the_same_images(self, tmp_path: Path) -> None:
        array = pixels(3, 5, 7)
        (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array)))
        (tmp_path / "a").write_bytes(idx_bytes(array))
        for name in ("a.gz", "a"):
            assert np.array_equal(read_idx(tmp_path / name).numpy(), array)

    @pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
    def test_a_directory_or_torchvisions_layout(self, tmp_path: Path, below: str) -> None:
        train, test = pixels(29, 5, 7), pixels(11, 5, 7, seed=1)
        write_mnist(tmp_path / below, train, test)
        data = load_idx("fashion-mnist", tmp_path, tune=3)
        assert (len(data.train), len(data.tune)) == (26, 3)
        assert torch.equal(data.heldout, from_levels(torch.from_numpy(test)[:, None], 256))
        assert "repacked" in data.provenance

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (idx_bytes(pixels(3, 5, 7))[:-1], "its header says"),
            (gzip.compress(idx_bytes(pixels(3, 5, 7)))[:-9], "cannot be read"),
            (b"<html>not found</html>", "is not an IDX file"),
            (b"\x00\x00\x08\x03\x00", "its header says"),
        ],
    )
    def test_damaged_files_are_one_clear_line(
        self, tmp_path: Path, content: bytes, message: str
    ) -> None:
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(UsageError, match=message):
            read_idx(tmp_path / "a")

    def test_missing_files_name_the_remedy(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"--download.*--data-dir"):
            load("mnist", tmp_path)

    def test_missing_test_images(self, tmp_path: Path) -> None:
        write_mnist(tmp_path, pixels(5, 2, 3), pixels(3, 2, 3))
        (tmp_path / TEST).unlink()
        with pytest.raises(UsageError, match="missing beside the training images"):
            load("fashion-mnist", tmp_path)


class TestCifar:
    @pytest.mark.parametrize("binary", [True, False])
    def test_both_formats_hold_the_same_images(
        self, tmp_path: Path, cifar_images: dict[str, np.ndarray], binary: bool
    ) -> None:
        write_cifar(tmp_path / "cifar10", cifar_images, binary=binary)
        data = load_cifar10(tmp_path, tune=3)
        assert (len(data.train), len(data.tune), data.shape) == (22, 3, (3, 32, 32))
        expected = from_levels(torch.from_numpy(cifar_images["test_batch"]), 256)
        assert torch.equal(data.heldout, expected)

    def test_a_pickle_that_runs_code_is_refused(self, tmp_path: Path) -> None:
        witness = tmp_path / "ran"

        class Hostile:
            def __reduce__(self) -> tuple[object, tuple[object, ...]]:
                return Path.touch, (witness,)

        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Hostile()}))
        with pytest.raises(UsageError, match="refused"):
            read_pickle(tmp_path / "test_batch")
        assert not witness.exists()

    def test_a_truncated_binary_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(bytes(3072))
        with pytest.raises(UsageError, match="3072 bytes, not a multiple of 3073"):
            read_binary(tmp_path / "a.bin")

    def test_a_missing_batch(self, tmp_path: Path, cifar_images: dict[str, np.ndarray]) -> None:
        del cifar_images["data_batch_3"]
        write_cifar(tmp_path / "cifar10", cifar_images, binary=True)
        with pytest.raises(UsageError, match="data_batch_3 missing"):
            load_cifar10(tmp_path)


class TestFolder:
    def save(self, root: Path, count: int, mode: str = "L") -> np.ndarray:
        shape = (count, 5, 7) if mode == "L" else (count, 5, 7, 3)
        array = pixels(*shape)
        for index, image in enumerate(array):
            path = root / f"class{index % 3}" / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        return array

    def test_grey_images_stay_grey(self, tmp_path: Path) -> None:
        array = self.save(tmp_path, 41)
        data = load(f"folder:{tmp_path}")
        assert (len(data.train), len(data.tune), len(data.heldout)) == (33, 2, 6)
        everything = torch.cat([data.train, data.tune, data.heldout])
        expected = from_levels(torch.from_numpy(array)[:, None], 256)
        assert sorted(digests(everything)) == sorted(digests(expected))

    def test_one_colour_image_makes_all_rgb(self, tmp_path: Path) -> None:
        self.save(tmp_path, 20)
        Image.fromarray(pixels(5, 7, 3)).save(tmp_path / "colour.png")
        assert load_folder(tmp_path).shape == (3, 5, 7)

    def test_sizes_must_agree(self, tmp_path: Path) -> None:
        self.save(tmp_path, 20)
        Image.fromarray(pixels(7, 5)).save(tmp_path / "z.png")
        with pytest.raises(UsageError, match=r"z\.png is 5×7 but .* is 7×5"):
            load_folder(tmp_path)

    def test_a_broken_image_is_named(self, tmp_path: Path) -> None:
        self.save(tmp_path, 20)
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        with pytest.raises(UsageError, match=r"broken\.png cannot be read"):
            load_folder(tmp_path)

    @pytest.mark.parametrize("count", [0, 3])
    def test_too_few_images(self, tmp_path: Path, count: int) -> None:
        self.save(tmp_path, count)
        with pytest.raises(UsageError, match=f"holds {count} images; at least 20"):
            load_folder(tmp_path)

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is not a directory"):
            load(f"folder:{tmp_path / 'absent'}")


class TestSynthetic:
    def test_the_gaussian_draws_follow_their_oracle(self) -> None:
        data = load("gaussian")
        energy = -data.oracle.log_prob(data.heldout.double())
        # −log p − its mean is ½(χ²_64 − 64): standard deviation √(64/2) per image, 500 images
        entropy = data.oracle.entropy()
        assert abs(float(energy.mean()) - entropy) < 4 * (32 / 500) ** 0.5
        assert (data.levels, data.decoder) == (None, "gaussian")

    def test_the_mixture_uses_its_weights(self) -> None:
        from bench.data.synthetic import _wave

        data = load("mixture")
        everything = torch.cat([data.train, data.tune, data.heldout]).double()
        waves = torch.stack([_wave(1, 0), _wave(0, 1), _wave(1, 1)])
        nearest = (everything[:, None] - waves).flatten(2).square().sum(2).argmin(1)
        share = nearest.bincount(minlength=3) / len(everything)
        for actual, expected in zip(share.tolist(), (0.5, 0.3, 0.2), strict=True):
            # binomial error; the fields lie far apart, so the nearest wave is the right one
            assert abs(actual - expected) < 4 * (0.25 / len(everything)) ** 0.5


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UsageError, match="fashion-mnist"):
        load("fashon-mnist")


def test_every_contract_name_has_a_loader() -> None:
    assert set(LOADERS) == {"digits", "fashion-mnist", "mnist", "cifar10", "gaussian", "mixture"}
