"""The laws in anybody's tests: a repository of three files is red for the right reason, green when expected, red again on an unexpected pass."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "laws-in-your-ci.md").read_text(encoding="utf-8")
PLUGIN = "bench.commands.pytest_laws"


def block(kind: str) -> str:
    """The first block of that kind on the page."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Adapter, expected failures and workflow as the page has them."""
    (tmp_path / "laws_adapter.py").write_text(block("python"))
    (tmp_path / "diffusion-laws-expected.txt").write_text(block("text"))
    workflows = tmp_path / ".github" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "laws.yml").write_text(block("yaml"))
    return tmp_path


def pytest_there(folder: Path, *words: str, **variables: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        PLUGIN,
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        *words,
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


LAWS = ("--diffusion-laws", "laws_adapter.py:Mine", "laws_adapter.py")


def mended(repository: Path) -> None:
    file = repository / "laws_adapter.py"
    file.write_text(file.read_text().replace("(1 - kept) * noise", "(1 - kept).sqrt() * noise"))


def test_red_for_the_right_reason(repository) -> None:
    (repository / "diffusion-laws-expected.txt").write_text("")
    status, said = pytest_there(repository, *LAWS)
    assert status == 1
    assert "3 failed" in said
    assert "I1-marginal marginal of x_t [float64, " in said
    assert "expected" in said
    assert "Traceback" not in said


def test_green_when_expected_and_the_reason_is_shown(repository) -> None:
    status, said = pytest_there(repository, "-rx", *LAWS)
    assert status == 0
    assert "3 xfailed" in said
    assert "the missing root, to be mended" in said


def test_an_unexpected_pass_is_visible_and_strict_makes_it_red(repository) -> None:
    mended(repository)
    status, said = pytest_there(repository, "-rX", *LAWS)
    assert status == 0
    assert "3 xpassed" in said
    assert re.search("XPASS .*laws_adapter.py:Mine::I1-marginal", said)
    status, said = pytest_there(repository, "--diffusion-laws-strict", *LAWS)
    assert status == 1
    assert "[XPASS(strict)]" in said
    (repository / "pytest.ini").write_text("[pytest]\nxfail_strict = true\n")
    assert pytest_there(repository, *LAWS)[0] == 1
    (repository / "diffusion-laws-expected.txt").write_text("# nothing left\n")
    status, said = pytest_there(repository, "--diffusion-laws-strict", *LAWS)
    assert status == 0
    assert "xpassed" not in said


def test_an_invariant_covers_its_laws(repository) -> None:
    (repository / "known.txt").write_text("I1: the root\nI15: the root\nI31: the root\n")
    status, said = pytest_there(repository, "--diffusion-laws-expected", "known.txt", *LAWS)
    assert status == 0
    assert "3 xfailed" in said


def test_unknown_ids_are_warned_about(repository) -> None:
    file = repository / "diffusion-laws-expected.txt"
    file.write_text(file.read_text() + "I1-marginl  a slip\n")
    status, said = pytest_there(repository, *LAWS)
    assert status == 0
    assert (
        "'I1-marginl' among the expected failures is not a law; did you mean I1-marginal?" in said
    )


def test_a_wrong_adapter_is_no_expected_failure(repository) -> None:
    file = repository / "laws_adapter.py"
    file.write_text(
        file.read_text().replace(
            "def q_sample(self, setting, x0, t, noise)", "def q_sample(self, x0)"
        )
    )
    assert pytest_there(repository, *LAWS)[0] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--diffusion-laws", "absent.py:Mine"), "there is no file"),
        (("--diffusion-laws", "laws_adapter.py:Theirs"), "Theirs"),
        ((*LAWS, "--diffusion-laws-expected", "absent.txt"), "there is no such file"),
    ],
)
def test_wrong_usage_is_pytests_own(repository, words, said) -> None:
    status, text = pytest_there(repository, *words)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert said in text


def test_without_the_option_it_is_inert(tmp_path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import sys\ndef test_one():\n    assert not {'torch', 'ddpm_ref', 'numpy'} & set(sys.modules)\n"
    )
    (tmp_path / "diffusion-laws-expected.txt").write_text("nonsense that is not read\n")
    # Other plugins import numpy.
    status, said = pytest_there(tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert status == 0, said
    assert "1 passed" in said
    assert "warning" not in said


def test_laws_run_beside_the_projects_own_tests_and_k_chooses(repository) -> None:
    (repository / "test_theirs.py").write_text("def test_one():\n    pass\n")
    status, said = pytest_there(repository, *LAWS[:2])
    assert status == 0
    counted = re.search(r"\b(\d+) passed", said)
    assert counted
    assert int(counted[1]) >= 3
    status, said = pytest_there(repository, *LAWS[:2], "-k", "I1-marginal")
    assert "1 xfailed" in said
    assert " passed" not in said


# --------------------------------------------------------------------------------------- the action, step by step


def steps_of(repository: Path, **changes: str) -> list[tuple[str, dict[str, str]]]:
    """(script, environment) of the action's steps under the inputs of the repository's own workflow."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is needed to read the action")
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    workflow = yaml.safe_load((repository / ".github/workflows/laws.yml").read_text())
    uses = workflow["jobs"]["laws"]["steps"][-1]
    assert uses["uses"].partition("@")[0].endswith("/diffusion-objective-bench")
    given = {**uses["with"], **changes}
    unknown = set(given) - set(action["inputs"])
    assert not unknown
    values = {
        f"inputs.{k}": given.get(k, v.get("default", "")) for k, v in action["inputs"].items()
    }
    values["github.action_path"] = str(ROOT)
    found = []
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # an input is data, never a part of the script
        if "if" in step:
            name, _, empty = step["if"].partition(" != ")
            assert empty == "''"
            if not values[name]:
                continue
        env = {
            k: re.sub(r"\$\{\{ (\S+) \}\}", lambda m: values[m[1]], v)
            for k, v in step["env"].items()
        }
        found.append((step["run"], env))
    return found


def run_step(script: str, env: dict[str, str], folder: Path, path: Path) -> tuple[int, str]:
    """As GitHub runs `shell: bash`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(path),
        "PYTEST_ADDOPTS": "-p no:randomly -p no:cacheprovider",
        **env,
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package as the action's first step installs it, from a copy, with its entry points."""
    here = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, here / name)
    for name in ("bench", "ddpm_ref"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    return here


def test_the_actions_steps_on_the_repository(repository, installed) -> None:
    """Installs the package, then: red, green, red again, and compare's exit status."""
    packages = repository.parent / "packages"
    options = {
        "python": sys.executable,
        "pip-options": f"--no-deps --no-build-isolation -q --target {packages}",
    }
    script, env = steps_of(repository, **options)[0]
    status, said = run_step(script, {**env, "HERE": str(installed)}, repository, packages)
    assert status == 0, said

    def laws(**changes: str) -> tuple[int, str]:
        return run_step(*steps_of(repository, **options, **changes)[1], repository, packages)

    status, said = laws(expected="")
    # The file's default name is found in the project all the same.
    assert status == 0, said
    (repository / "none.txt").write_text("")
    status, said = laws(expected="none.txt")
    assert status == 1, said
    assert "I1-marginal marginal of x_t" in said
    status, said = laws()
    assert status == 0, said
    assert "3 xfailed" in said

    records = repository / "records"
    verify = [
        sys.executable,
        "-m",
        "bench",
        "verify",
        "--against",
        "laws_adapter.py:Mine",
        "--out",
        "records",
    ]
    there = {**os.environ, "PYTHONPATH": str(packages)}
    assert subprocess.run(verify, cwd=repository, env=there, capture_output=True).returncode == 1
    wrong = next(records.glob("*.json")).rename(repository / "wrong.json")
    mended(repository)
    status, said = laws()
    assert status == 1, said
    assert "XPASS(strict)" in said
    assert laws(strict="false")[0] == 0
    assert subprocess.run(verify, cwd=repository, env=there, capture_output=True).returncode == 0
    right = next(records.glob("*.json")).rename(repository / "right.json")

    def comparison(baseline: Path) -> tuple[int, str]:
        steps = steps_of(repository, **options, baseline=baseline.name)
        return run_step(*steps[2], repository, packages)

    status, said = comparison(wrong)
    assert status == 0, said  # better than the baseline
    file = repository / "laws_adapter.py"
    file.write_text(file.read_text().replace("(1 - kept).sqrt() * noise", "(1 - kept) * noise"))
    status, said = comparison(right)
    assert status == 1, said
