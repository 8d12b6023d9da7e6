"""The shell of the commands: fast help, one-line errors of use, Ctrl-C and closed pipes."""

import json
import os
import re
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import __main__ as shell
from bench.terminal.usage import (
    Interrupted,
    UsageError,
    in_words,
    on_interrupt,
    one_of,
    writable_directory,
    writable_file,
)

pytestmark = pytest.mark.any_torch

ROOT = Path(shell.__file__).parent.parent


def _run(*words, **kwargs):
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)


@pytest.fixture
def command(monkeypatch):
    """A command `demo` whose body each test sets."""
    module = types.SimpleNamespace(
        HELP="demonstrates",
        add_arguments=lambda parser: (
            parser.add_argument("--preset", type=one_of("preset", ["quick", "full"])),
            parser.add_argument("--data"),
        ),
        run=lambda arguments: 0,
    )
    monkeypatch.setitem(shell.COMMANDS, "demo", "demonstrates")
    monkeypatch.setattr(shell, "_load", lambda name: module)
    return module


def test_every_command_has_a_module_with_the_interface():
    for name in shell.COMMANDS:
        module = f"bench.commands.{name.replace('-', '_')}"
        assert find_spec(module), module


def test_help_of_the_commands_needs_no_torch():
    code = (
        "import contextlib, sys\n"
        "from bench.__main__ import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main([name, '--help'])\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in shell.COMMANDS:
        assert f"usage: ddpm-bench {name} " in done.stdout


def test_overview_imports_nothing_slow():
    code = (
        "import sys; from bench.__main__ import main; main(['--help'])\n"
        "slow = {'torch', 'numpy', 'scipy', 'matplotlib', 'jinja2', 'tqdm'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, line in shell.COMMANDS.items():
        assert name in done.stdout
        assert line in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demp"], "unknown command 'demp'; did you mean demo?"),
        (["--outt"], "unknown option '--outt'; known: --help, --version"),
        (["demo", "--prest", "quick"], "unknown option for demo '--prest'; did you mean --preset?"),
        (["demo", "--pre", "quick"], "unknown option for demo '--pre'"),
        (["demo", "extra"], "unknown argument for demo 'extra'"),
        (["demo", "--preset", "quik"], "unknown preset 'quik'; did you mean quick?"),
        (["demo", "--data"], "expected one argument"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_2(command, capsys, words, message):
    assert shell.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_status_of_the_command_is_the_status(command):
    for status in (0, 1, 2):
        command.run = lambda arguments, status=status: status
        assert shell.main(["demo"]) == status


def _raising(error):
    def run(arguments):
        raise error

    return run


def test_a_missing_package_names_the_remedy(command, capsys):
    command.run = _raising(
        ModuleNotFoundError("No module named 'sklearn'", name="sklearn.datasets")
    )
    assert shell.main(["demo"]) == 2
    assert "python -m pip install 'diffusion-objective-bench[bench]'" in capsys.readouterr().err


def test_a_module_of_our_own_that_is_missing_is_a_defect(command):
    command.run = _raising(ModuleNotFoundError("No module named 'bench.x'", name="bench.x"))
    with pytest.raises(ModuleNotFoundError):
        shell.main(["demo"])


def test_other_errors_keep_their_traceback(command):
    command.run = _raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        shell.main(["demo"])


def test_interruption_says_what_is_finished(command, capsys):
    def run(arguments):
        with on_interrupt(lambda: "3 of 12 arms are finished; their records lie in out/records"):
            raise KeyboardInterrupt

    command.run = run
    assert shell.main(["demo"]) == 130
    assert "stopped. 3 of 12 arms are finished; their records lie in out/records" in (
        capsys.readouterr().err
    )


def test_the_innermost_description_wins():
    with (
        pytest.raises(Interrupted, match="^inner$"),
        on_interrupt(lambda: "outer"),
        on_interrupt(lambda: "inner"),
    ):
        raise KeyboardInterrupt


def test_a_closed_pipe_is_quiet():
    """`ddpm-bench --help | head -0`: no traceback, the status of a program ended by SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141


def test_without_a_command_help_is_shown_and_the_status_is_2(capsys):
    assert shell.main([]) == 2
    assert "usage: ddpm-bench COMMAND" in capsys.readouterr().out


def test_runs_from_a_bare_checkout():
    done = _run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("ddpm-bench ")


def test_writable_directory(tmp_path):
    assert writable_directory(tmp_path / "a" / "b").is_dir()
    occupied = tmp_path / "file"
    occupied.write_text("x")
    with pytest.raises(UsageError, match="choose another folder with --out"):
        writable_directory(occupied)
    with pytest.raises(UsageError, match="choose another folder with --out"):
        writable_directory(occupied / "below")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_directory_without_write_permission(tmp_path, monkeypatch):
    """The same message for root, who may write everywhere, by refusing in the call itself."""

    def refuse(*, dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("bench.terminal.usage.tempfile.TemporaryFile", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        writable_directory(tmp_path)


def test_the_option_that_named_a_folder_is_in_the_message(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("x")
    with pytest.raises(UsageError, match="choose another folder with --json"):
        writable_directory(occupied, "--json")


def test_writable_file_changes_nothing(tmp_path):
    there, absent = tmp_path / "there", tmp_path / "absent"
    there.write_text("x")
    assert writable_file(there, "--json") == there
    assert writable_file(absent, "--json") == absent
    assert there.read_text() == "x"
    assert not absent.exists()
    for bad in (tmp_path, there / "below", tmp_path / "no" / "folder"):
        with pytest.raises(UsageError, match="--json .*cannot be written"):
            writable_file(bad, "--json")


def test_what_installed_code_raises_has_the_line_of_the_caller_or_none():
    try:
        json.loads("{")
    except ValueError as error:
        here = in_words(error)
    assert here.startswith("JSONDecodeError: ")
    assert "(test_cli.py:" in here
    assert in_words(KeyError()) == "KeyError"


def test_help_groups_every_command_on_one_screen(capsys):
    assert shell.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
    for title in ("judge code and models:", "measure:", "train:", "report:"):
        assert title in text
    for name in shell.COMMANDS:
        assert len(re.findall(rf"^  {name} ", text, re.MULTILINE)) == 1


def test_no_command_writes_into_committed_records_unless_asked(capsys):
    for name in shell.COMMANDS:
        with pytest.raises(SystemExit):
            shell.parse(f"ddpm-bench {name}", shell._load(name), ["--help"])
        assert "(default: reports/" not in capsys.readouterr().out
