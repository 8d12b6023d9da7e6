"""Photographs cut by region, images averaged by area, published files fetched from a server of the test's own."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from bench.data import load
from bench.data.photos import BANDS, patches, photographs
from bench.data.resize import area_average, overlaps
from bench.terminal.usage import UsageError
from tests.test_data import idx_bytes, pixels, write_mnist


class TestPhotos:
    def test_parts_come_from_their_own_columns(self) -> None:
        """Each pixel of a stand-in says where it is, so that patches show which pixels they hold."""
        places = torch.arange(427 * 640).reshape(1, 427, 640)
        seen = [
            set(patches(band, side, stride).flatten().tolist())
            for band, side, stride in zip(
                places.split(BANDS, dim=2), (8, 8, 8), (4, 8, 8), strict=True
            )
        ]
        assert not (seen[0] | seen[1]) & seen[2]
        assert not seen[0] & seen[1]
        assert {place % 640 for place in seen[2]} == set(range(448, 640))

    @pytest.mark.parametrize("side", [4, 8, 32])
    def test_held_out_patches_tile_their_band(self, side: int) -> None:
        data = load(f"photos:{side}")
        rows, columns = 427 // side, BANDS[2] // side
        assert data.heldout.shape == (2 * rows * columns, 3, side, side)
        grey = ((data.heldout + 1) * 127.5).round().byte()
        picture = photographs()[0][:, : rows * side, 448 : 448 + columns * side]
        tiles = grey[: rows * columns].reshape(rows, columns, 3, side, side)
        assert torch.equal(tiles.permute(2, 0, 3, 1, 4).reshape(picture.shape), picture)

    def test_training_patches_are_pieces_of_the_photographs(self) -> None:
        data, picture = load("photos:16"), photographs()[0]
        first = ((data.train[0] + 1) * 127.5).round().byte()
        assert torch.equal(first, picture[:, :16, :16])
        second = ((data.train[1] + 1) * 127.5).round().byte()
        assert torch.equal(second, picture[:, :16, 4:20])
        assert data.levels == 256
        assert (
            len(data.train) + data.removed == 2 * 103 * 93
        )  # every fourth row and column of 427 × 384

    @pytest.mark.parametrize("name", ["photos:1", "photos:65", "photos:", "photos:8.5"])
    def test_sides_that_make_no_sense_are_one_line(self, name: str) -> None:
        with pytest.raises(UsageError, match="photos"):
            load(name)


class TestAreaAverage:
    @pytest.mark.parametrize(("size", "side"), [(28, 14), (28, 16), (7, 3), (5, 4), (6, 5)])
    def test_is_the_mean_of_the_covered_area(self, size: int, side: int) -> None:
        images = torch.from_numpy(pixels(5, 2, size, size))
        # every old pixel as side×side equal ones: then each new pixel is a block of size×size whole ones
        fine = images.double().repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
        means = fine.reshape(5, 2, side, size, side, size).mean(dim=(3, 5))
        assert torch.equal(area_average(images, side), torch.floor(means + 0.5 + 1e-9).byte())

    def test_an_even_ratio_is_torchs_own_average(self) -> None:
        images = torch.from_numpy(pixels(3, 1, 28, 28))
        expected = torch.nn.functional.avg_pool2d(images.double(), 2)
        assert torch.equal(area_average(images, 14), torch.floor(expected + 0.5).byte())

    def test_weights_add_up(self) -> None:
        weights = overlaps(28, 16)
        assert weights.sum(dim=1).tolist() == [28] * 16
        assert weights.sum(dim=0).tolist() == [16] * 28

    def test_the_smaller_set_is_the_same_images_in_the_same_parts(self, tmp_path: Path) -> None:
        write_mnist(tmp_path, pixels(1200, 6, 6), pixels(13, 6, 6, seed=1))
        full, small = load("fashion-mnist", tmp_path), load("fashion-mnist:3", tmp_path)
        for part in ("train", "tune", "heldout"):
            grey = ((getattr(full, part) + 1) * 127.5).round().byte()
            found = ((getattr(small, part) + 1) * 127.5).round().byte()
            assert torch.equal(found, area_average(grey, 3))
        assert small.name == "fashion-mnist:3"
        assert "area-averaged from 6×6" in small.provenance

    @pytest.mark.parametrize("side", [1, 6, 7])
    def test_only_smaller_sides(self, tmp_path: Path, side: int) -> None:
        write_mnist(tmp_path, pixels(1200, 6, 6), pixels(13, 6, 6, seed=1))
        with pytest.raises(UsageError, match=r"2 … 5"):
            load(f"fashion-mnist:{side}", tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each request."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address on this machine."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=os.fspath(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class TestDownload:
    @pytest.fixture
    def fashion(
        self, publisher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, bytes]:
        """Small files under the published names, and torchvision told where they are."""
        folder, address = publisher
        files = {
            f"{stem}.gz": gzip.compress(idx_bytes(array))
            for stem, array in (
                ("train-images-idx3-ubyte", pixels(1200, 6, 6)),
                ("t10k-images-idx3-ubyte", pixels(13, 6, 6, seed=1)),
            )
        }
        for name, content in files.items():
            (folder / name).write_bytes(content)
        resources = [(name, md5(content)) for name, content in files.items()]
        labels = [("train-labels-idx1-ubyte.gz", "0" * 32)]  # not fetched, since nothing reads them
        monkeypatch.setattr(datasets.FashionMNIST, "resources", resources + labels)
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"{address}nowhere/", address])
        return files

    def test_missing_files_are_fetched_once_and_read_by_our_own_reader(
        self, fashion: dict[str, bytes], publisher: tuple[Path, str], tmp_path: Path
    ) -> None:
        root = tmp_path / "here"
        data = load("fashion-mnist", root, download=True)
        assert data.train.shape == (200, 1, 6, 6)
        for name, content in fashion.items():
            assert (root / "FashionMNIST" / "raw" / name).read_bytes() == content
            (publisher[0] / name).unlink()  # what is there is not fetched again
        assert load("fashion-mnist", root, download=True).sha256 == data.sha256
        assert load("fashion-mnist:3", root).train.shape == (200, 1, 3, 3)

    def test_a_damaged_file_is_refused(
        self, fashion: dict[str, bytes], publisher: tuple[Path, str], tmp_path: Path
    ) -> None:
        (publisher[0] / "t10k-images-idx3-ubyte.gz").write_bytes(b"an error page")
        with pytest.raises(UsageError, match="could not be downloaded"):
            load("fashion-mnist", tmp_path / "here", download=True)

    def test_without_a_network_one_line_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
        with pytest.raises(UsageError, match="mnist could not be downloaded"):
            load("mnist", tmp_path, download=True)

    def test_nothing_is_fetched_unless_asked_for(
        self, fashion: dict[str, bytes], tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="--download"):
            load("fashion-mnist", tmp_path)
        assert list(tmp_path.rglob("*.gz")) == list((tmp_path / "published").glob("*.gz"))

    def test_cifar_comes_as_an_archive_and_is_never_unpickled_by_torchvision(
        self, publisher: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, address = publisher
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for k, stem in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
                rows = pixels(300, 3072, seed=k)
                content = pickle.dumps({b"data": rows, b"labels": [0] * 300}, protocol=2)
                member = tarfile.TarInfo(f"cifar-10-batches-py/{stem}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        (folder / "c.tar.gz").write_bytes(packed.getvalue())
        monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}c.tar.gz")
        monkeypatch.setattr(datasets.CIFAR10, "filename", "c.tar.gz")
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(packed.getvalue()))
        monkeypatch.setattr(datasets.CIFAR10, "__init__", None)
        data = load("cifar10", tmp_path / "here", download=True)
        assert data.train.shape == (500, 3, 32, 32)
        first = np.asarray(pixels(300, 3072, seed=5)).reshape(300, 3, 32, 32)
        assert torch.equal(((data.heldout + 1) * 127.5).round().byte(), torch.from_numpy(first))

    def test_archives_that_leave_their_folder_are_refused(
        self, publisher: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, address = publisher
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO(b""))
        (folder / "c.tar.gz").write_bytes(packed.getvalue())
        monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}c.tar.gz")
        monkeypatch.setattr(datasets.CIFAR10, "filename", "c.tar.gz")
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(packed.getvalue()))
        with pytest.raises(UsageError, match="could not be downloaded"):
            load("cifar10", tmp_path / "here", download=True)
        assert not (tmp_path / "outside").exists()
