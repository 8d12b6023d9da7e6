"""`ddpm-bench verify`: exit status, JSON, and messages from which one finds the wrong line."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.measure.laws.examine import examine, known_laws, record, subjects

pytestmark = pytest.mark.any_torch

USER_CODE = """
import torch
from ddpm_ref.conformance import Implementation, Setting


class Base(Implementation):
    name = "mine"
    first_index = 0

    def settings(self):
        return (Setting("linear", 1000),)

    def kept(self, setting, t, x):
        beta = torch.linspace(1e-4, 0.02, setting.T, dtype=torch.float64)
        return torch.cumprod(1 - beta, 0)[self.index(t)].reshape(-1, *[1] * (x.ndim - 1))


class NoRoot(Base):
    def q_sample(self, setting, x0, t, noise):
        kept = self.kept(setting, t, x0)
        return (kept.sqrt() * x0 + (1 - kept) * noise).to(x0.dtype)


class OffByOne(Base):
    first_index = 1

    def q_sample(self, setting, x0, t, noise):
        kept = self.kept(setting, t.clamp(max=999), x0)
        return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


class Careless(Base):
    def q_sample(self, setting, x0, t, noise):
        raise RuntimeError("the network is on fire")

    def posterior(self, setting, x0, x_t, t):
        return None

    def target(self, setting, parameterization, x0, eps, t):
        return eps[:, :0]

    def weight(self, setting, weighting, t, parameterization):
        return torch.full((len(t),), float("nan"))

    def gaussian_kl(self, mean1, log_var1, mean2, log_var2):
        ratio = (log_var1 - log_var2).exp() + (mean1 - mean2) ** 2 * (-log_var2).exp()
        return 0.5 * (log_var2 - log_var1 + ratio - 1)


class NoSettings(Base):
    def settings(self):
        raise KeyError("nothing here")

    gaussian_kl = Careless.gaussian_kl


class CannotBeBuilt(Base):
    def __init__(self):
        raise RuntimeError("no weights")


class NeedsArguments(Base):
    def __init__(self, path):
        pass


class LeavesWhenBuilt(Base):
    def __init__(self):
        raise SystemExit(0)


class Leaves(Base):
    def q_sample(self, setting, x0, t, noise):
        raise SystemExit(0)

    gaussian_kl = Careless.gaussian_kl


class Right(NoRoot):
    def q_sample(self, setting, x0, t, noise):
        kept = self.kept(setting, t, x0)
        return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)


class Imaginary(Right):
    def q_sample(self, *arguments):
        return super().q_sample(*arguments).double() + 1j


class Elsewhere(Right):
    def q_sample(self, *arguments):
        return super().q_sample(*arguments).to("meta")


class Sparse(Right):
    def q_sample(self, *arguments):
        return super().q_sample(*arguments).to_sparse()


class Numpy(Right):
    def q_sample(self, *arguments):
        return super().q_sample(*arguments).double().numpy()


class Unspeakable(Right):
    def q_sample(self, *arguments):
        class Failure(Exception):
            def __str__(self):
                raise ValueError("mute")

        raise Failure


class Talkative(Right):
    def q_sample(self, *arguments):
        raise RuntimeError("one\\ntwo")


class Chatty(Right):
    def q_sample(self, *arguments):
        print("this is not JSON")
        return super().q_sample(*arguments)


class ForgetsNoise(Right):
    def q_sample(self, setting, x0, t):
        return x0


class Misspelt(Right):
    def q_sample(self, setting, x0, t, noise):
        return kepd * x0


class NoDtypes(Right):
    dtypes = ()


class DtypesByName(Right):
    dtypes = ("float32",)


class IndexInWords(Right):
    first_index = "zero"


class Nameless(Right):
    name = None


class ConventionsInWords(Right):
    conventions = 3


class NoAdapter:
    pass
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    file = tmp_path / "users_adapter.py"
    file.write_text(USER_CODE)
    return file


def run(*words: str) -> int:
    return main(["verify", *words])


def laws(*ids: str) -> list[str]:
    return [word for id in ids for word in ("--law", id)]


def strict(file: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in strict JSON")

    return json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)


# ------------------------------------------------------------------------------------------------ the command


def test_ours_holds_and_the_json_says_so(tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    assert run(*laws("I9-kl", "I21"), "--json", str(file)) == 0
    found = strict(file)
    assert {row["law"] for row in found["laws"]} == {"I9-kl", "I21-hybrid"}
    required = {
        "law",
        "status",
        "error",
        "tolerance",
        "dtype",
        "classification",
        "witness",
        "snippet",
    }
    assert all(required <= set(row) for row in found["laws"])
    assert found["implementations"][0]["name"] == "ddpm_ref"
    assert found["failed"] == []
    assert found["schema"] == "ddpm-bench.verify/1"


def test_a_missing_root_is_found_with_its_value(
    user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdict.json"
    words = (
        *laws("I1-marginal", "I15-noise"),
        "--against",
        f"{user_file}:NoRoot",
        "--json",
        str(file),
        "-v",
    )
    assert run(*words) == 1
    printed = capsys.readouterr().out
    assert "BUG" in printed
    assert "x_t/ε = √(1−ᾱ_t)" in printed  # what should hold
    rows = strict(file)["laws"]
    noise = next(r for r in rows if (r["law"], r["dtype"]) == ("I15-noise", "float64"))
    assert noise["classification"] == "bug"
    assert noise["double_check"]["confirmed"] is True
    (t,) = noise["witness"]["arguments"]["t"]
    assert f"q_sample (linear T=1000, t={t})" in printed  # where it does not
    # With x0 = 0 the noise came out times √(1−ᾱ_t) once more: from that one finds the line.
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[t - 1]
    assert noise["witness"]["measured"] / noise["witness"]["expected"] == pytest.approx(
        float((1 - kept).sqrt()), rel=1e-9
    )


def test_a_snippet_reproduces_the_failure(
    user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdict.json"
    run(*laws("I1-marginal"), "--against", f"{user_file}:OffByOne", "--json", str(file))
    row = strict(file)["laws"][0]
    capsys.readouterr()
    exec(row["snippet"], {})
    printed = float(capsys.readouterr().out.partition("[[")[2].partition("]]")[0])
    assert printed == pytest.approx(row["witness"]["measured"], abs=1e-4)


def test_what_a_users_code_raises_or_garbles_is_an_outcome_and_other_laws_run(
    user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdict.json"
    chosen = laws("I1-marginal", "I2-mean", "I3-target", "I7-definition", "I9-kl")
    assert run(*chosen, "--against", f"{user_file}:Careless", "--json", str(file)) == 2
    rows = {r["law"]: r for r in strict(file)["laws"] if r["dtype"] == "float64"}
    assert rows["I1-marginal"]["status"] == "error"
    assert "the network is on fire (users_adapter.py:" in rows["I1-marginal"]["message"]
    assert "returned NoneType" in rows["I2-mean"]["message"]
    assert rows["I2-mean"]["classification"] == "adapter"
    assert "has shape" in rows["I3-target"]["message"]
    assert "nan" in rows["I7-definition"]["message"]
    assert rows["I7-definition"]["error"] is None
    assert rows["I7-definition"]["error_reason"]
    assert rows["I9-kl"]["status"] == "pass"
    assert "Traceback" not in capsys.readouterr().err


def test_settings_that_raise_spare_the_laws_that_need_none(user_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    chosen = laws("I1-marginal", "I9-kl")
    assert run(*chosen, "--against", f"{user_file}:NoSettings", "--json", str(file)) == 2
    rows = {r["law"]: r for r in strict(file)["laws"] if r["dtype"] == "float64"}
    assert "KeyError" in rows["I1-marginal"]["message"]
    assert rows["I9-kl"]["status"] == "pass"


def test_init_writes_a_file_that_holds_and_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fresh_adapter.py"
    assert run("--init", str(file)) == 0
    assert run(*laws("I1", "I15"), "--against", f"{file}:MyDiffusion") == 0
    before = file.read_text()
    assert run("--init", str(file)) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--against", "difusers"], "'diffusers'"),
        (["--against", "absent.py:X"], "no file"),
        (["--law", "I8-tail"], "'I8-tails'"),
        (["--json", "no/such/folder/v.json"], "cannot be written"),
        (["--init", "adapter.txt"], "ends in .py"),
        (["--init", ".py"], "ends in .py"),
        (["--init", "no/such/folder/adapter.py"], "cannot be written"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_2(
    words: Sequence[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert hint in said


def test_a_missing_library_is_one_line_with_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "flow_matching", None)
    assert run("--against", "flow-matching") == 2
    assert "pip install flow-matching" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NeedsArguments", "missing 1 required positional argument: 'path'"),
        ("LeavesWhenBuilt", "SystemExit: 0 (users_adapter.py:"),
        ("NoDtypes", "dtypes = () of the adapter must be a tuple of dtypes"),
        ("DtypesByName", "dtypes = ('float32',)"),
        ("IndexInWords", "first_index = 'zero' of the adapter must be an int"),
        ("Nameless", "name = None of the adapter must be a str"),
        ("ConventionsInWords", "conventions = 3"),
        ("NoAdapter", "NoAdapter in"),
    ],
)
def test_a_malformed_adapter_is_an_error_of_use(
    user_file: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert run(*laws("I9-kl"), "--against", f"{user_file}:{name}") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.exit(0)\n", "SystemExit: 0 (broken_adapter.py:2)"),
        ("x = 1\nraise OSError('no disk')\n", "OSError: no disk (broken_adapter.py:2)"),
        ("class Mine(:\n", "(broken_adapter.py, line 1)"),
        ("", "has no adapter: a class that derives from"),
    ],
)
def test_a_file_that_ends_the_program_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = tmp_path / "broken_adapter.py"
    file.write_text(text)
    assert run("--against", f"{file}:Mine") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Leaves", "raised SystemExit: 0 (users_adapter.py:"),
        ("Imaginary", "dtype torch.complex128; real numbers are expected"),
        ("Elsewhere", "is a tensor on meta"),
        ("Sparse", "of layout torch.sparse_coo"),
        ("Unspeakable", "its message cannot be read, ValueError"),
        ("Talkative", "RuntimeError: one two (users_adapter.py:"),
    ],
)
def test_what_a_method_does_is_a_failed_law_and_never_a_crash_or_a_pass(
    user_file: Path, tmp_path: Path, name: str, said: str
) -> None:
    file = tmp_path / "verdict.json"
    words = laws("I1-marginal", "I9-kl")
    assert run(*words, "--against", f"{user_file}:{name}", "--json", str(file)) == 1
    rows = {r["law"]: r for r in strict(file)["laws"] if r["dtype"] == "float64"}
    assert rows["I1-marginal"]["status"] in ("error", "fail")
    assert rows["I1-marginal"]["classification"] == "bug"
    assert said in rows["I1-marginal"]["message"]
    assert rows["I9-kl"]["status"] in ("pass", "not-offered")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Numpy", "returned ndarray"),
        ("NoSettings", "no case can be made: KeyError"),
        ("ForgetsNoise", "the signature is q_sample(self, setting, x0, t, noise)"),
        ("Misspelt", "NameError: name 'kepd' is not defined"),
    ],
)
def test_what_only_the_adapter_can_be_the_reason_of_is_wrong_usage(
    user_file: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert run(*laws("I1-marginal", "I9-kl"), "--against", f"{user_file}:{name}") == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert said in printed
    assert "BUG" not in printed


def test_json_on_standard_output_is_alone_there(
    user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*laws("I1-marginal"), "--against", f"{user_file}:Chatty", "--json", "-") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["schema"] == "ddpm-bench.verify/1"
    assert "this is not JSON" in captured.err
    assert "I1-marginal" in captured.err


def test_an_error_of_use_leaves_no_empty_file_behind(tmp_path: Path) -> None:
    file, kept = tmp_path / "verdict.json", tmp_path / "kept.json"
    kept.write_text("before")
    for place in (file, kept):
        assert run("--json", str(place), "--law", "I99") == 2
    assert not file.exists()
    assert kept.read_text() == "before"


def test_an_adapter_that_cannot_be_built_or_named_is_an_error_of_use(
    user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--against", f"{user_file}:CannotBeBuilt") == 2
    assert "no weights" in capsys.readouterr().err
    assert run("--against", f"{user_file}:NoRot") == 2
    assert "'NoRoot'" in capsys.readouterr().err


def test_a_record_keeps_no_path_of_a_users_file(user_file: Path) -> None:
    (subject,) = subjects(f"{user_file}:NoRoot")
    kept = record([examine(subject, known_laws(["I9-kl"]))], known_laws(["I9-kl"]))
    assert str(user_file.parent) not in json.dumps(kept.protocol) + json.dumps(kept.results)
