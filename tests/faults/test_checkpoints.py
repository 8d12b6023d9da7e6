"""What is not a checkpoint is one line, whatever it is; lack of memory is not the file's fault."""

import csv
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from ddpm_ref import checkpoint as checkpoints
from ddpm_ref.checkpoint import load_checkpoint, save_checkpoint
from ddpm_ref.config import TrainConfig
from ddpm_ref.trainer import train
from ddpm_ref.training_state import content_hash, new_state


@pytest.fixture
def payload(tmp_path: Path) -> dict:
    """What an older release wrote, without a hash: nothing but the reader guards it."""
    config = TrainConfig(T=3, network_options={"base": 2, "multipliers": (1,), "attention": ()})
    state = new_state(config, (1, 2, 2), "0" * 64)
    whole = torch.load(save_checkpoint(tmp_path / "whole.pt", state), weights_only=True)
    return {**whole, "version": 1}


CHANGES = {
    "no network": lambda p: p.pop("network"),
    "no step": lambda p: p.pop("step"),
    "no optimizer": lambda p: p.pop("optimizer"),
    "another size": lambda p: p["network"].update({k: torch.zeros(3, 3, 3) for k in list(p["network"])[:1]}),
    "weights that are text": lambda p: p.update(network="weights"),
    "a shape of words": lambda p: p.update(shape="large"),
    "a schedule of other tables": lambda p: p.update(schedule={"alpha": torch.ones(3)}),
    "a norm of one number": lambda p: p.update(running_norm=3.0),
    "no version": lambda p: p.pop("version"),
    "a configuration of another key": lambda p: p.update(config="colour = 3"),
    "a configuration that is a number": lambda p: p.update(config=3),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*older release")
@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_that_lacks_something_is_one_error(
    tmp_path: Path, payload: dict, name: str
) -> None:
    CHANGES[name](payload)
    torch.save(payload, tmp_path / "changed.pt")
    with pytest.raises((ValueError, TypeError)):
        load_checkpoint(tmp_path / "changed.pt")


@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00.", b"\x80\x04N.", bytes(1000)])  # fmt: skip
def test_bytes_that_are_no_checkpoint_are_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt' (is not a checkpoint|holds no)"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder: pass the checkpoint\.pt in it"):
        load_checkpoint(tmp_path)


def test_lack_of_memory_is_not_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **options: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        )

    (tmp_path / "a.pt").write_bytes(bytes(200))
    monkeypatch.setattr(checkpoints.torch, "load", full)
    with pytest.raises(MemoryError, match="does not fit into memory"):
        load_checkpoint(tmp_path / "a.pt")


# ---------------------------------------------------------------- what a diverged run leaves


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The checkpoint of a run whose learning rate was far too large, and the step that ended it."""
    out = tmp_path_factory.mktemp("diverged")
    words = "train --network article --set T=5 --set batch_size=6 --steps 60 --set learning_rate=1e30 --set warmup_steps=0"
    assert main([*words.split(), "--out", str(out)]) == 1
    with open(out / "log.csv", newline="") as file:
        return out / "checkpoint.pt", int(list(csv.DictReader(file))[-1]["step"])


@pytest.mark.parametrize(
    "words",
    [
        ["elbo", "{}"],
        ["elbo", "{}", "--full", "--json", "-"],
        ["loss", "{}"],
        ["bound", "--price", "{}"],
        ["estimator", "{}"],
    ],
)
def test_a_diverged_run_is_not_scored_as_if_it_were_a_model(
    diverged: tuple[Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:  # fmt: skip
    path, step = diverged
    monkeypatch.chdir(tmp_path)
    assert main([str(path) if word == "{}" else word for word in words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert f"{path}: the run diverged at step {step}" in told.err


def test_a_diverged_run_is_no_partner_of_a_good_one(diverged: tuple[Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    words = "train --network article --set T=5 --set batch_size=6 --steps 1 --sampler-steps 1"
    assert main([*words.split(), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["loss", str(tmp_path / "checkpoint.pt"), str(diverged[0])]) == 2
    assert f"diverged at step {diverged[1]}" in capsys.readouterr().err


def test_the_weights_of_a_diverged_run_can_be_looked_into_and_the_run_resumed(
    diverged: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    path, step = diverged
    checkpoint = load_checkpoint(path)
    assert (checkpoint.state.diverged, checkpoint.step) == (step, step - 1)
    with pytest.raises(ValueError, match=rf"diverged at step {step}.*smaller learning_rate"):
        _ = checkpoint.model
    assert next(checkpoint.state.ema.module.parameters()).isfinite().all()
    assert main(["train", "--resume", "--out", str(path.parent)]) == 1
    assert f"diverged at step {step}" in capsys.readouterr().out


def test_a_step_that_succeeds_takes_the_mark_away_and_older_files_have_none(tmp_path: Path) -> None:
    config = TrainConfig(T=3, steps=1, batch_size=2, network="article", network_options={"hidden": 2})  # fmt: skip
    state = new_state(config, (1, 2, 2), "0" * 64)
    state.diverged = 1
    marked = load_checkpoint(save_checkpoint(tmp_path / "a.pt", state))
    assert marked.state.diverged == 1
    payload = torch.load(tmp_path / "a.pt", weights_only=True)
    del payload["diverged"]
    torch.save({**payload, "version": 1}, tmp_path / "old.pt")
    with pytest.warns(UserWarning, match="older release"):
        assert load_checkpoint(tmp_path / "old.pt").state.diverged is None
    images = torch.zeros(4, 1, 2, 2)
    fresh = new_state(config, (1, 2, 2), content_hash(images))
    fresh.diverged = 1
    (step,) = train(config, images, resume=load_checkpoint(save_checkpoint(tmp_path / "b.pt", fresh)))  # fmt: skip
    assert step.state.diverged is None
