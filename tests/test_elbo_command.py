"""`ddpm-bench elbo`: right numbers for foreign models whatever their conventions, and clear errors of use."""

import json
import math
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.commands import elbo as elbo_command
from ddpm_ref.elbo import elbo
from ddpm_ref.schedule import linear_schedule

FACTORY = """
import torch
from torch import nn
from ddpm_ref.schedule import linear_schedule
from bench.metrics.foreign_model import Foreign

class Shrink(nn.Module):
    def forward(self, x_t, t):
        return 0.5 * x_t

class Broken(nn.Module):
    def forward(self, x_t, t):
        return x_t * float("nan")

def bare():
    return Shrink()

def with_schedule():
    return Shrink(), linear_schedule(13)

def explicit():
    return Foreign(Shrink(), linear_schedule(13), parameterization="x0", variance="beta")

def broken():
    return Broken()

def broken_at_the_last_step():
    return lambda x_t, t: torch.where(t.view(-1, 1, 1, 1) == 5, float("inf"), x_t)

def huge():
    return lambda x_t, t: 1e90 * x_t.double()

def nothing():
    return 3

def talks():
    print("weights loaded")
    def model(x_t, t):
        print("asked")
        return 0.5 * x_t
    return model, linear_schedule(13)
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(FACTORY)
    return path


def call(*words: str) -> int:
    return main(["elbo", *words])


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert call(*words, "--data", "digits", "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


def test_full_sum_of_a_foreign_model_is_elbo(factory, capsys) -> None:
    from bench.data import load

    found = measured(
        capsys, "--model", f"{factory}:explicit", "--full", "--examples", "7", "--draws", "2"
    )
    images, schedule = load("digits").heldout[:7], linear_schedule(13)
    direct = elbo(
        lambda x, t: 0.5 * x,
        images,
        schedule,
        parameterization="x0",
        variance="beta",
        levels=17,
        draws=2,
    )
    assert found["bits_per_dim"] == pytest.approx(direct.bits_per_dim.mean().item(), rel=1e-6)
    assert found["evaluations"] == 7 * 13 * 2
    assert found["protocol"]["variance"] == "beta"
    assert len(found["curve_nats"]) == 13
    spread = direct.bits_per_dim.std().item() / math.sqrt(7)
    assert found["bits_per_dim_stderr"] == pytest.approx(spread, rel=1e-6)


def test_a_budget_agrees_with_the_full_sum_within_its_error(factory, capsys, tmp_path) -> None:
    picture = tmp_path / "curve.png"
    model = f"{factory}:with_schedule"
    full = measured(capsys, "--model", model, "--full", "--examples", "40")
    some = measured(
        capsys, "--model", model, "--evaluations", "400", "--examples", "40", "--out", str(picture)
    )
    assert some["evaluations"] <= 400
    error = some["bits_per_dim_stderr"]
    assert (
        abs(some["bits_per_dim"] - full["bits_per_dim"]) < 5 * error + 0.02 * full["bits_per_dim"]
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_printed_page_names_terms_errors_and_protocol(factory, capsys) -> None:
    words = ("--T", "9", "--schedule", "cosine", "--evaluations", "100", "--examples", "10")
    assert call("--model", f"{factory}:bare", "--data", "digits", *words) == 0
    page = capsys.readouterr().out
    for word in ("L_T", "ΣL_t", "L_0", "total", "±", "T = 9", "17 grey levels", "nothing clipped"):
        assert word in page


def test_the_error_of_a_single_example_is_unknown(factory, capsys) -> None:
    words = ("--model", f"{factory}:with_schedule", "--data", "digits", "--full", "--examples", "1")
    assert call(*words) == 0
    page = capsys.readouterr().out
    assert page.count("± unknown") == 8  # four terms in two units
    assert "exact)" not in page
    assert "one image cannot tell" in page
    found = measured(capsys, *words)
    assert found["bits_per_dim_stderr"] is None
    assert found["stderr_degrees_of_freedom"] == 0
    assert all(term["stderr"] is None for term in found["terms_nats"].values())


def test_few_examples_are_said_to_have_a_wide_interval(factory, capsys) -> None:
    # Student's t for 1 degree of freedom: tan(π/2 · 0.95) = 12.7.
    model = ("--model", f"{factory}:with_schedule", "--data", "digits")
    for words in (("--evaluations", "50", "--examples", "1"), ("--full", "--examples", "2")):
        assert call(*model, *words) == 0
        assert (
            "95 % interval of the total: ± 12.7 of them (Student's t, 1 degrees"
            in capsys.readouterr().out
        )
        found = measured(capsys, *model[:2], *words)
        assert found["stderr_degrees_of_freedom"] == pytest.approx(1)


@pytest.mark.parametrize("way", [("--full",), ("--evaluations", "50")])
def test_a_huge_but_finite_bound_has_a_finite_error(factory, capsys, way) -> None:
    # The squares that a standard error is made of would overflow.
    found = measured(capsys, "--model", f"{factory}:huge", "--T", "5", "--examples", "3", *way)
    assert 1e180 < found["bits_per_dim"] < 1e190
    assert 0 < found["bits_per_dim_stderr"] < found["bits_per_dim"]


@pytest.mark.parametrize("function", ["broken", "broken_at_the_last_step"])
@pytest.mark.parametrize("examples", ["1", "3"])
@pytest.mark.parametrize("way", [("--full",), ("--evaluations", "50")])
def test_a_model_that_returns_nan_exits_1_and_says_so(
    factory, capsys, way, examples, function
) -> None:
    words = ("--T", "5", "--examples", examples, "--data", "digits", *way)
    assert call("--model", f"{factory}:{function}", *words) == 1
    assert "not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "one of the two"),
        (("a.pt", "--model", "b.py:c"), "one of the two"),
        (("missing.pt",), "does not exist"),
        (("--model", "nocolon"), "FILE.py:FACTORY"),
        (("--model", "FACTORY:absent", "--data", "digits"), "it has"),
        (("--model", "FACTORY:nothing", "--data", "digits"), "returned int"),
        (("--model", "FACTORY:bare"), "--data is missing"),
        (("--model", "FACTORY:bare", "--data", "digit"), "digits"),
        (("--model", "FACTORY:bare", "--data", "digits", "--schedule", "linar"), "linear"),
        (("--model", "FACTORY:bare", "--data", "digits", "--variance", "betta"), "beta"),
        (("--model", "FACTORY:bare", "--data", "gaussian", "--decoder", "discretized"), "levels"),
        (("--model", "FACTORY:bare", "--full", "--evaluations", "99"), "not allowed"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_2(factory, capsys, words, message) -> None:
    assert call(*(word.replace("FACTORY", str(factory)) for word in words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_checkpoint_of_our_trainer(tmp_path, capsys) -> None:
    from ddpm_ref.checkpoint import save_checkpoint
    from ddpm_ref.config import TrainConfig
    from ddpm_ref.training_state import new_state

    config = TrainConfig(T=5, network_options={"base": 8})
    path = save_checkpoint(tmp_path / "checkpoint.pt", new_state(config, (1, 8, 8), "0" * 64))
    found = measured(capsys, str(path), "--evaluations", "64", "--examples", "6")
    assert found["protocol"]["T"] == 5
    assert found["evaluations"] <= 64
    assert call(str(path), "--T", "9") == 2
    assert "--T belongs to --model" in capsys.readouterr().err


THEIRS = """
import sys
from torch import nn
from ddpm_ref.schedule import linear_schedule
from bench.metrics.foreign_model import Foreign


def missing_weights():
    return load({})


def load(state):
    return state["weights"]  # line 13


def leaves():
    sys.exit(0)


def in_torch():
    return nn.Linear("three", 3)


def wants_a_path(path):
    return None


def no_schedule():
    return Foreign(lambda x, t: x, 7)


def no_model():
    return Foreign(7, linear_schedule(3))


def fails_later():
    def model(x, t):
        raise RuntimeError("two\\nlines")
    return model, linear_schedule(3)


def leaves_later():
    return (lambda x, t: sys.exit(0)), linear_schedule(3)


def one_channel():
    return Foreign(lambda x, t: x, linear_schedule(3), variance="learned_range")


def a_pair():
    return Foreign(lambda x, t: (x, x), linear_schedule(3), variance="learned_range")


def forgets_to_return():
    return Foreign(lambda x, t: None, linear_schedule(3), variance="learned_range")


def smaller_images():
    def model(x, t):
        return x.repeat(1, 2, 1, 1)[..., 1:]
    return Foreign(model, linear_schedule(3), variance="learned_range")


def integers():
    return Foreign(lambda x, t: x.repeat(1, 2, 1, 1).long(), linear_schedule(3), variance="learned_range")
"""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("missing_weights", "missing_weights() in theirs_too.py raised: KeyError: 'weights' (theirs_too.py:13)"),
        ("leaves", "leaves() in theirs_too.py raised: SystemExit: 0 (theirs_too.py:"),
        ("in_torch", "(theirs_too.py:21)"),
        ("wants_a_path", "missing 1 required positional argument: 'path'"),
        ("no_schedule", "schedule is a int"),
        ("no_model", "model is a int"),
        ("fails_later", "the model, called with x_t [6, 1, 8, 8] and 6 steps from 1, raised RuntimeError: two lines (theirs_too.py:38)"),
        ("leaves_later", "raised SystemExit: 0 (theirs_too.py:43)"),
        ("one_channel", "twice the channels of x_t [6, 1, 8, 8], not [6, 1, 8, 8]"),
        ("a_pair", "twice the channels of x_t [6, 1, 8, 8], not tuple: the prediction, then v"),
        ("forgets_to_return", "twice the channels of x_t [6, 1, 8, 8], not NoneType"),
        ("smaller_images", "twice the channels of x_t [6, 1, 8, 8], not [6, 2, 8, 7]"),
        ("integers", "dtype torch.int64"),
    ],
)  # fmt: skip
def test_what_their_code_raises_is_one_line_with_its_place(
    tmp_path, capsys, function, said
) -> None:
    file = tmp_path / "theirs_too.py"
    file.write_text(THEIRS)
    assert (
        call("--model", f"{file}:{function}", "--data", "digits", "--full", "--examples", "2") == 2
    )
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise OSError('no disk')\n", "broken.py cannot be imported: OSError: no disk (broken.py:2)"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0 (broken.py:2)"),
        ("def make(:\n", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import no_such_package_anywhere\n", "No module named 'no_such_package_anywhere' (broken.py:1)"),
        ("from torch import nn\n", "no function 'make' there; it has none"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_imported_is_one_line_with_its_place(
    tmp_path, capsys, text, said
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    assert call("--model", f"{file}:make", "--data", "digits") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_file_may_import_its_neighbour_and_define_dataclasses(tmp_path, capsys) -> None:
    (tmp_path / "elbo_neighbour.py").write_text("def half(x):\n    return 0.5 * x\n")
    file = tmp_path / "with_neighbour.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from elbo_neighbour import half\n"
        "@dataclass\n"
        "class Model:\n"
        "    factor: float = 1.0\n"
        "    def __call__(self, x, t):\n"
        "        return half(x)\n"
        "def make():\n"
        "    return Model()\n"
    )
    found = measured(capsys, "--model", f"{file}:make", "--T", "3", "--full", "--examples", "2")
    assert found["protocol"]["T"] == 3


def test_the_json_names_its_schema_and_its_fields(factory, capsys) -> None:
    words = ("--T", "3", "--full", "--examples", "2")
    found = measured(capsys, "--model", f"{factory}:bare", *words)
    assert found["schema"] == "ddpm-bench.elbo/1"
    for name in found:
        assert f"`{name}`" in elbo_command.__doc__
    broken = ("--model", f"{factory}:broken", *words, "--data", "digits", "--json", "-")
    assert call(*broken) == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {"schema": "ddpm-bench.elbo/1", "bits_per_dim": None, "reason": "not finite"}


@pytest.mark.parametrize("way", [("--full",), ("--evaluations", "40")])
def test_what_their_code_prints_does_not_enter_the_json(factory, capsys, way) -> None:
    model = ("--model", f"{factory}:talks", "--data", "digits", "--examples", "2", *way)
    assert call(*model, "--json", "-") == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["schema"] == "ddpm-bench.elbo/1"
    assert "weights loaded" in written.err
    assert "asked" in written.err
    assert call(*model) == 0
    assert "weights loaded" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--json", "--out"])
def test_a_place_that_cannot_be_written_is_said_before_the_work(
    factory, tmp_path, capsys, option
) -> None:
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", factory / "below.png"):
        assert call("--model", f"{factory}:bare", "--data", "digits", option, str(place)) == 2
        error = capsys.readouterr().err
        assert option in error
        assert error.count("\n") == 1
        assert {"--json", "--out"} - {option} == {w for w in ("--json", "--out") if w not in error}


def test_an_error_of_use_leaves_no_empty_file_behind(factory, tmp_path) -> None:
    file, kept = tmp_path / "sub" / "found.json", tmp_path / "kept.json"
    kept.write_text("before")
    for place in (file, kept):
        assert call("--model", f"{factory}:nothing", "--data", "digits", "--json", str(place)) == 2
    assert not file.exists()
    assert kept.read_text() == "before"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--draws", "2"), "--draws 2 belongs to --full"),
        (("--device", "cudaa"), "--device cudaa: not usable here"),
        (("--device", "meta"), "--device meta: not usable here"),
        (("--out", "curve.picture"), "--out curve.picture: 'picture' is not a kind of picture"),
        (("--T", "9"), "--T 9: --model brings its own schedule, Schedule(T=13"),
        (("--schedule", "cosine"), "--schedule cosine: --model brings its own schedule"),
    ],
)
def test_options_that_cannot_be_followed_are_refused_before_the_work(
    factory, capsys, monkeypatch, tmp_path, words, said
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("--model", f"{factory}:with_schedule", "--data", "digits", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
