"""Names that are no names, pipes, odd schedule files, numbers beyond all bounds, half of torchrun's environment: one line, before any work."""

import errno
import io
import json
import os
import sys
from pathlib import Path

import pytest

import bench.__main__ as program
from bench.__main__ import main
from bench.job.together import is_chief, processes
from bench.terminal.streams import forgiving
from bench.terminal.usage import UsageError, at_home, writable_file
from ddpm_ref.config import TrainConfig, parse_toml

pytestmark = pytest.mark.any_torch

LONG = "a" * 300


def told(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("name", ["~nobody-has-this-name/x", LONG, "a/" * 3000, "\udcff", "a\nb"])
@pytest.mark.parametrize(
    "words",
    [
        ["elbo", "{}"],
        ["report", "{}.json"],
        ["claims", "{}.json"],
        ["schedule", "{}.json"],
        ["verify", "--against", "{}.py:Mine"],
        ["capacity", "--rank", "1", "--data", "array:{}.npy"],
        ["capacity", "--rank", "1", "--data", "folder:{}"],
        ["elbo", "--data", "digits", "--model", "hf:{}"],
        ["elbo", "--data", "digits", "--model", "{}.py:make"],
        ["releases", "{}"],
    ],
)
def test_a_file_of_an_impossible_name_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    told(capsys, [word.format(name) for word in words])


@pytest.mark.parametrize(
    "words",
    [
        ["report", ""],
        ["report", "x.json", "--out", ""],
        ["schedule", "linear", "--json", ""],
        ["capacity", "--rank", "1", "--data", "folder:"],
        ["elbo", "--model", "x.py:make", "--images", ""],
    ],
)
def test_an_empty_name_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.py").write_text("def make():\n    return lambda x, t: x\n")
    told(capsys, words)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix) == ["x.json", "x.py"]
    with pytest.raises(UsageError, match="is empty: is a variable of the shell not set"):
        at_home("")


def test_a_pipe_without_a_reader_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="it is a pipe, which would wait for a reader"):
        writable_file(tmp_path / "pipe", "--json")
    reading, writing = os.pipe()
    assert writable_file(f"/dev/fd/{writing}", "--json")  # what a shell makes of >(command)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("words", [["claims", "--json", "{}"], ["compare", "a", "b", "--html", "{}"], ["compare", "a", "b", "--markdown", "{}"]])  # fmt: skip
def test_where_the_figures_go_is_looked_at_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, tmp_path / "gone" / "a"):
        assert "--" in told(capsys, [word.format(place) for word in words])


# ---------------------------------------------------------------- schedule files

BASE = {"_class_name": "DDPMScheduler", "num_train_timesteps": 20, "beta_schedule": "linear"}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"beta": [1' + "0" * 400 + "]}", "not a number"),
        ('{"beta": [0.1], "steps_offset": "x"}', "steps_offset = 'x'"),
        ('{"beta": [0.1], "steps_offset": 1e999}', "steps_offset = 'inf'"),
        ('{"beta": [0.1], "timestep_spacing": "colour"}', "unknown timestep_spacing 'colour'"),
        ('{"beta": [0.1], "prediction_type": ["epsilon"]}', "unknown prediction_type"),
        (BASE | {"num_train_timesteps": 10**12}, "a whole number from 1 to 10,000,000"),
        (BASE | {"num_train_timesteps": 1.5}, "num_train_timesteps = 1.5"),
        (BASE | {"num_train_timesteps": True}, "num_train_timesteps = 'True'"),
        (BASE | {"beta_start": [1]}, "beta_start = '[1]'"),
        (BASE | {"beta_schedule": ["linear"]}, "unknown beta_schedule"),
        (BASE | {"trained_betas": "abc"}, "trained_betas is a str"),
        (BASE | {"rescale_betas_zero_snr": "false"}, "true or false is expected"),
        (BASE | {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": -1}, "shift = -1"),
        (BASE | {"_class_name": "EDMEulerScheduler", "rho": 0}, "rho = 0: a number above 0"),
        (BASE | {"_class_name": "EDMEulerScheduler", "sigma_max": 0.001}, "EDMEulerScheduler: "),
        (BASE | {"_class_name": "EDMEulerScheduler", "sigma_schedule": 3}, "sigma_schedule '3'"),
    ],
)
def test_an_odd_schedule_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entries: object, said: str
) -> None:
    file = tmp_path / "odd.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    assert said in told(capsys, ["schedule", str(file)])


def test_an_ending_that_is_no_picture_is_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "a.nothing")
    assert "'nothing' is not a kind of picture" in told(
        capsys, ["schedule", "linear", "--out", place]
    )


@pytest.mark.parametrize("beta", ["1e999", "2.0", "NaN"])
def test_what_is_not_finite_is_null_in_the_json_and_a_finding(tmp_path: Path, beta: str) -> None:
    file, place = tmp_path / "odd.json", tmp_path / "found.json"
    file.write_text(f'{{"beta": [{beta}]}}')
    assert main(["schedule", str(file), "--json", str(place)]) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in strict JSON")

    found = json.loads(place.read_text(), parse_constant=refuse)
    assert any(each["level"] == "error" for each in found["findings"])


# ---------------------------------------------------------------- configurations and options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("T = 5\nT = 6\n", "this is not TOML"),
    ],
)
def test_toml_that_cannot_be_read_is_a_value_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_toml(text)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"data": "folder:\udcff"}, "is not UTF-8"),
        ({"learning_rate": 10**400}, "beyond the range of a float"),
        ({"steps": -(10**5000)}, r"steps = -2\*\*"),
        ({"data": 10**5000}, r"data = 2\*\*"),
        ({"batch_size": 10**5000}, r"batch_size = 2\*\*"),
        ({"steps": 10**5000}, r"steps = 2\*\*"),
        ({"network_options": 10**5000}, r"network_options = 2\*\*"),
        ({"network_options": {"path": "\udcff"}}, "network_options.path.* is not UTF-8"),
        ({"seed": "\udcff"}, "is a str; it must be a int"),
    ],
)
def test_a_value_that_no_configuration_can_hold_is_named(entry: dict, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        TrainConfig(**entry)


@pytest.mark.parametrize(
    "words",
    [
        ["noise-test", "--count", "1e6", "--seed", "-1"],
        ["elbo", "x", "--seed", "9" * 30],
        ["elbo", "x", "--batch-size", "9" * 5000],
        ["throughput", "--only", "suite", "--seconds", "nan"],
        ["throughput", "--only", "contest", "--shapes", "9" * 30 + "x1"],
        ["run", "--preset", "tiny", "--limit", "inf"],
        ["gpu-visit", "--study-steps", "-1"],
    ],
)
def test_a_number_beyond_all_bounds_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert len(told(capsys, words)) < 300


# ---------------------------------------------------------------- environment


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE = 'abc'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE = '0'"),
        ({"WORLD_SIZE": "9" * 30}, "WORLD_SIZE = "),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "LOCAL_RANK is not set"),
    ],
)
def test_half_of_torchruns_environment_is_told(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], said: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        processes()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "raise the limit (ulimit -n)"),
        (MemoryError(), "the memory is used up"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "used up"),
    ],
)
def test_what_the_machine_has_no_more_of_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(program, "_load", fail)
    assert said in told(capsys, ["weights"])


def test_a_rank_without_a_world_does_not_make_a_run_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    assert processes() == 1
    assert is_chief()


def test_a_stream_that_somebody_closes_shows_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "shown", "w", encoding="utf-8") as file:
        assert isinstance(file, io.TextIOWrapper)
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "__stdout__", file)
        with forgiving():
            print("before")
            sys.stdout.close()
            print("after")
    assert (tmp_path / "shown").read_text().split() == ["before", "after"]
