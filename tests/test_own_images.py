"""`--images FOLDER|FILE.npy|FILE.npz`: the images that are in the file, all of them, or a refusal that says what could be meant."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.__main__ import main
from bench.data import load, without_path
from bench.data.array_file import load_whole, read_array
from bench.terminal.usage import UsageError
from ddpm_ref.elbo import elbo
from ddpm_ref.schedule import linear_schedule

pytestmark = pytest.mark.any_torch


def bytes_of(n: int = 5, height: int = 4, width: int = 6, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, channels, height, width), dtype=np.uint8)


def kept(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def test_one_set_of_pictures_in_every_notation(tmp_path) -> None:
    images = bytes_of()
    exact = torch.from_numpy(images.astype(np.float64)) / 127.5 - 1
    notations = {
        "channels first": images,
        "channels last": images.transpose(0, 2, 3, 1),
        "float64 on [-1, 1]": images / 127.5 - 1,
        "float32 on [-1, 1]": (images / 127.5 - 1).astype(np.float32),
        "float32, channels last": (images.transpose(0, 2, 3, 1) / 127.5 - 1).astype(np.float32),
    }
    for name, array in notations.items():
        data = load_whole(kept(tmp_path, array))
        assert data.levels == 256, name
        torch.testing.assert_close(data.heldout.double(), exact, atol=1e-6, rtol=0)
    grey = load_whole(kept(tmp_path, images[:, 0]))
    assert grey.heldout.shape == (5, 1, 4, 6)
    torch.testing.assert_close(grey.heldout.double(), exact[:, :1], atol=1e-6, rtol=0)


def test_npz_holds_one_array_or_the_images(tmp_path) -> None:
    images, file = bytes_of(), tmp_path / "a.npz"
    for names in ({"anything": images}, {"images": images, "labels": np.arange(5)}):
        np.savez(file, **names)
        assert torch.equal(read_array(file), torch.from_numpy(images))
    np.savez(file, images, labels=np.arange(5))
    assert torch.equal(read_array(file), torch.from_numpy(images))
    np.savez(file, x=images, y=images)
    with pytest.raises(UsageError, match="holds the arrays x, y"):
        read_array(file)


def test_values_off_the_lattice_are_continuous(tmp_path) -> None:
    latents = np.random.default_rng(0).normal(size=(5, 4, 8, 8)).astype(np.float32)
    data = load_whole(kept(tmp_path, latents))
    assert data.levels is None
    assert data.decoder == "gaussian"
    assert torch.equal(data.heldout, torch.from_numpy(latents))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 4, 4), dtype=np.uint16), "uint16"),
        (np.zeros((3, 4, 4), dtype=np.int64), "int64"),
        (np.random.default_rng(0).random((3, 4, 4)), "2 * images - 1"),
        (np.random.default_rng(0).random((3, 4, 4)) * 255, "uint8"),
        (np.full((3, 4, 4), np.nan), "NaN"),
        (np.zeros((3, 3, 4, 3), dtype=np.uint8), "both ways"),
        (np.zeros((3, 5, 4, 7), dtype=np.uint8), "no axis of 1 or 3"),
        (np.zeros((3, 4), dtype=np.uint8), "[N, H, W]"),
        (np.zeros((0, 4, 4), dtype=np.uint8), "[0, 4, 4]"),
        (np.array([{"a": 1}], dtype=object), "without objects"),
    ],
)
def test_what_could_mean_two_things_is_refused(tmp_path, array, said) -> None:
    with pytest.raises(UsageError) as error:
        read_array(kept(tmp_path, array))
    assert said in str(error.value)


FACTORY = "from ddpm_ref import linear_schedule\ndef make():\n    return (lambda x, t: 0.5 * x), linear_schedule(5)\n"


def test_elbo_of_all_images_of_a_folder(tmp_path, capsys) -> None:
    """Three pictures, fewer than a data set needs, none of them held back."""
    from PIL import Image

    images = bytes_of(3)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index}.png")
    (tmp_path / "m.py").write_text(FACTORY)
    words = ["elbo", "--model", f"{tmp_path}/m.py:make", "--full", "--json", "-"]
    exact = torch.from_numpy(images.astype(np.float64) / 127.5 - 1).float()
    direct = elbo(lambda x, t: 0.5 * x, exact, linear_schedule(5), levels=256)
    for path in (folder, kept(tmp_path, images)):
        assert main([*words, "--images", str(path)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["examples"] == 3
        assert found["bits_per_dim"] == pytest.approx(direct.bits_per_dim.mean().item(), rel=1e-6)


def test_images_and_data_together_are_refused(tmp_path, capsys) -> None:
    (tmp_path / "m.py").write_text(FACTORY)
    words = ["elbo", "--model", f"{tmp_path}/m.py:make", "--images", str(tmp_path)]
    for more, said in (
        (["--data", "digits"], "--images and --data"),
        (["--part", "train"], "evaluated whole"),
        ([], "holds 0 images"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    words[-1] = str(tmp_path / "pictures.tar")
    assert main(words) == 2
    assert "neither a folder nor a file" in capsys.readouterr().err


def test_training_on_an_array(tmp_path, capsys) -> None:
    file = kept(tmp_path, bytes_of(40, 8, 8, 1))
    out = tmp_path / "run"
    words = [
        "train",
        "--images",
        str(file),
        "--out",
        str(out),
        "--steps",
        "1",
        "--sampler-steps",
        "1",
    ]
    small = ["--set", "batch_size=4", "--set", "network_options.base=8", "--set", "T=5"]
    assert main([*words, *small]) == 0
    assert (out / "checkpoint.pt").is_file()
    data = load(f"array:{file}")
    assert (len(data.heldout), len(data.tune), len(data.train)) == (6, 2, 32)
    assert without_path(f"array:{file}") == "array:PATH"
