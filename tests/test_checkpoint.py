"""Checkpoints: a run goes on bit for bit, a file is whole or absent, and loading one runs no code."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch

from ddpm_ref import checkpoint
from ddpm_ref.checkpoint import load_checkpoint, save_checkpoint
from ddpm_ref.config import TrainConfig
from ddpm_ref.trainer import Step, train

CONFIG = TrainConfig(
    T=7,
    batch_size=6,
    steps=7,
    seed=11,
    clip_factor=1.0,
    network_options={"base": 4, "multipliers": (1, 2)},
)


def images(count: int = 13) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand((count, 1, 4, 6), generator=generator) * 2 - 1


def until(steps: int, config: TrainConfig = CONFIG) -> Step:
    *_, last = train(dataclasses.replace(config, steps=steps), images())
    return last


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(tmp_path, precision):
    config = dataclasses.replace(CONFIG, precision=precision)
    whole = list(train(config, images()))
    # Image 13 begins a new epoch in the middle of step 3, right after the stop.
    path = save_checkpoint(tmp_path / "run.pt", until(2, config).state)
    resumed = list(train(config, images(), resume=load_checkpoint(path)))
    assert [step.step for step in resumed] == [3, 4, 5, 6, 7]
    assert [s.loss for s in resumed] == [s.loss for s in whole[2:]]
    assert [s.gradient_norm for s in resumed] == [s.gradient_norm for s in whole[2:]]
    assert [s.clipped for s in resumed] == [s.clipped for s in whole[2:]]
    for name in ("network", "ema"):
        states = [getattr(run[-1], name).state_dict() for run in (whole, resumed)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_checkpoint_gives_the_averaged_model_in_eval_mode(tmp_path):
    last = until(4)
    loaded = load_checkpoint(save_checkpoint(tmp_path / "run.pt", last.state))
    assert loaded.step == 4
    assert loaded.config == dataclasses.replace(CONFIG, steps=4)
    assert torch.equal(loaded.schedule.log_snr, last.state.schedule.log_snr)
    assert not loaded.model.training
    x_t, t = images()[:3], torch.tensor([1, 4, 7])
    assert torch.equal(loaded.model(x_t, t), last.ema(x_t, t))
    assert not torch.equal(loaded.model(x_t, t), last.network(x_t, t))


def test_a_resumed_run_must_be_the_same_run(tmp_path):
    path = save_checkpoint(tmp_path / "run.pt", until(2).state)
    other = dataclasses.replace(CONFIG, seed=12)
    with pytest.raises(ValueError, match=r"seed = 12, but the checkpoint was trained with 11"):
        train(other, images(), resume=load_checkpoint(path))
    with pytest.raises(ValueError, match=r"the images differ"):
        train(CONFIG, images(14), resume=load_checkpoint(path))
    longer = dataclasses.replace(CONFIG, steps=3, provider="eager")
    assert len(list(train(longer, images(), resume=load_checkpoint(path)))) == 1


def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    state = until(1).state
    path = save_checkpoint(tmp_path / "run.pt", state)
    before = path.read_bytes()

    def fails(payload, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.torch, "save", fails)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, state)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize(
    "content",
    ["text", Evil(), {"format": "other"}, {"format": checkpoint.FORMAT, "version": 99}],
    ids=["text", "code", "foreign", "newer"],
)
def test_what_is_no_checkpoint_is_refused_without_running_it(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt'.*(not a checkpoint|holds no|version 99)"):
        load_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("kept", [0, 10, 2000])
def test_a_torn_file_is_no_checkpoint(tmp_path, kept):
    path = save_checkpoint(tmp_path / "run.pt", until(1).state)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")


# ---------------------------------------------------------------- content hash


def test_a_single_flipped_bit_anywhere_is_refused(tmp_path):
    """Every kind of place: archive headers, tensors, padding, directory, and the line with the hash itself."""
    path = save_checkpoint(tmp_path / "run.pt", until(1).state)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(3)
    places = torch.randint(0, len(whole), (60,), generator=generator).tolist()
    for place in [0, *places, len(whole) - 110, len(whole) - 100, len(whole) - 40, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.pt' is (damaged|not a checkpoint)"):
            load_checkpoint(path)
    path.write_bytes(whole)
    assert load_checkpoint(path).step == 1
    assert checkpoint.saved_steps(path) == 1


def test_torch_reads_the_archive_as_ever_and_the_line_is_the_sha256_of_what_is_before_it(tmp_path):
    path = save_checkpoint(tmp_path / "run.pt", until(1).state)
    assert torch.load(path, weights_only=True)["step"] == 1
    before, digest = path.read_bytes().rsplit(b"\nsha256 of the bytes before this line: ", 1)
    assert hashlib.sha256(before).hexdigest() == digest.decode().strip()


def test_an_older_file_without_a_hash_is_loaded_with_a_word(tmp_path):
    last = until(1)
    payload = checkpoint._payload(last.state) | {"version": 1}
    for key in ("averages", "history"):  # which version 1 did not have
        del payload[key]
    torch.save(payload, tmp_path / "old.pt")
    with pytest.warns(UserWarning, match="without a hash: whether its bytes are intact"):
        loaded = load_checkpoint(tmp_path / "old.pt")
    rest = list(train(CONFIG, images(), resume=loaded))
    assert rest[0].step == 2
    path = save_checkpoint(tmp_path / "new.pt", loaded.state)
    assert load_checkpoint(path).step == rest[-1].step


def test_a_network_from_a_file_is_run_only_when_asked_for(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Conv2d(channels, channels, 1)\n"
        "    def forward(self, x, t):\n"
        "        return self.layer(nn.functional.dropout(x, 0.5, self.training))\n"
    )
    config = dataclasses.replace(CONFIG, network=f"{tmp_path}/net.py:Net", network_options={})
    whole = list(train(config, images()))
    path = save_checkpoint(tmp_path / "run.pt", next(train(config, images())).state)
    with pytest.raises(ValueError, match=r"loading it runs that file.*run_code=True"):
        load_checkpoint(path)
    # Its dropout is a function of the step, so that this run resumes to the bit as well.
    rest = list(train(config, images(), resume=load_checkpoint(path, run_code=True)))
    assert [step.loss for step in rest] == [step.loss for step in whole[1:]]
