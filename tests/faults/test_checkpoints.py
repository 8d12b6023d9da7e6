"""What is not a checkpoint is one line, whatever it is; lack of memory is not the file's fault."""

from pathlib import Path

import pytest
import torch

from ddpm_ref import checkpoint as checkpoints
from ddpm_ref.checkpoint import load_checkpoint, save_checkpoint
from ddpm_ref.config import TrainConfig
from ddpm_ref.training_state import new_state


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
