"""Images that are read as they are needed give the run of images in memory, whatever reads them."""

import dataclasses

import numpy as np
import pytest
import torch

from ddpm_ref.checkpoint import load_checkpoint, save_checkpoint
from ddpm_ref.config import TrainConfig
from ddpm_ref.images import FolderImages, MappedImages
from ddpm_ref.trainer import train
from ddpm_ref.training_state import content_hash

CONFIG = TrainConfig(
    T=7,
    batch_size=6,
    steps=5,
    warmup_steps=2,
    seed=11,
    network="article",
    network_options={"hidden": 3},
)


@pytest.fixture
def grey() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (13, 1, 3, 5), generator=generator, dtype=torch.uint8)


@pytest.fixture
def mapped(grey, tmp_path) -> MappedImages:
    np.save(tmp_path / "images.npy", grey.numpy())
    return MappedImages(tmp_path / "images.npy")


def losses(run) -> list[float]:
    return [step.loss for step in run]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "choices", [{}, {"accumulation": 3}, {"compile": True, "steps": 2}], ids=str
)
def test_a_mapped_file_trains_like_its_images_in_memory(grey, mapped, workers, choices):
    if choices.get("compile") and workers:
        pytest.skip("compiling once is enough")
    config = dataclasses.replace(CONFIG, **choices)
    run = list(train(config, mapped, workers=workers))
    assert losses(run) == losses(train(config, grey.float() / 127.5 - 1))
    assert run[-1].state.data_sha256 == content_hash(grey.float() / 127.5 - 1)


def test_a_run_goes_on_with_another_reader_and_from_memory(grey, mapped, tmp_path):
    whole = losses(train(CONFIG, mapped))
    for step in train(CONFIG, mapped, workers=1):
        if step.step == 2:
            save_checkpoint(tmp_path / "run.pt", step.state)
            break
    rest = [losses(train(CONFIG, data, resume=load_checkpoint(tmp_path / "run.pt")))
            for data in (mapped, grey.float() / 127.5 - 1)]  # fmt: skip
    assert rest == [whole[2:], whole[2:]]


def test_a_folder_is_read_picture_by_picture(grey, tmp_path):
    from PIL import Image

    for number, image in enumerate(grey):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    folder = FolderImages(tmp_path, mode="L")
    assert len(folder) == 13
    assert torch.equal(torch.stack(list(folder)), grey.float() / 127.5 - 1)
    assert FolderImages(tmp_path)[0].shape == (3, 3, 5)
    assert losses(train(CONFIG, folder)) == losses(train(CONFIG, grey.float() / 127.5 - 1))


class Broken:
    def __init__(self, *examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Broken(), ValueError, "no example"),
        (Broken(torch.zeros(1, 3, 5, dtype=torch.uint8)), TypeError, r"data\[0\] has dtype torch.uint8"),
        (Broken(torch.zeros(1, 3, 5), torch.full((1, 3, 5), torch.nan)), ValueError, "must be finite"),
        (Broken(torch.zeros(3, 5)), ValueError, r"data has shape \[1, 3, 5\]"),
        (7, TypeError, "data is a int"),
        ("digits", TypeError, r"data\[0\] is a str"),
    ],
)  # fmt: skip
def test_a_set_is_checked_before_the_first_step(data, error, message):
    with pytest.raises(error, match=message):
        train(CONFIG, data)


def test_files_that_are_no_images_are_refused(tmp_path):
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(ValueError, match="words.npy holds"):
        MappedImages(tmp_path / "words.npy")
    with pytest.raises(ValueError, match="has no image"):
        FolderImages(tmp_path)
    with pytest.raises(FileNotFoundError):
        MappedImages(tmp_path / "absent.npy")
