"""The environment is described without a name, a place or a path."""

import getpass
import json
import re
import socket
import subprocess
from pathlib import Path

import bench.record.environment as module
from bench.record import checked_json
from bench.record.environment import commit_label, environment, same_machine


def test_is_json():
    assert checked_json(environment()) == environment()


def test_names_nobody():
    text = json.dumps(environment())
    assert str(Path.home()) not in text
    assert str(Path(__file__).parent.parent) not in text
    words = set(re.findall(r"[\w.-]+", text))
    assert words.isdisjoint({socket.gethostname(), getpass.getuser()} - {""})


def test_commit_is_the_project_s_own():
    root = Path(module.__file__).parents[2]
    asked = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    inside = (root / ".git").exists() and done.returncode == 0
    assert environment()["commit"] == (done.stdout.strip() if inside else None)


def test_a_foreign_repository_around_it_is_not_asked(tmp_path, monkeypatch):
    """Installed into an environment that lies inside some repository: its commit is not ours."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    package = tmp_path / "site-packages" / "bench" / "record"
    package.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(package / "environment.py"))
    assert environment()["commit"] is None
    assert environment()["dirty"] is None


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None


def test_same_machine_looks_at_hardware_only():
    base = {
        "machine": {"cpu": "A", "architecture": "x", "cores": 2, "memory_gib": 23.5},
        "accelerator": None,
        "python": "3.11.1",
    }
    assert same_machine(base, {**base, "python": "3.12.0"})
    assert same_machine(base, {**base, "machine": {**base["machine"], "memory_gib": 23.4}})
    assert not same_machine(base, {**base, "machine": {**base["machine"], "cores": 4}})
    assert not same_machine(base, {**base, "accelerator": {"name": "G"}})


def test_commit_label():
    assert commit_label({"commit": "0123456789abcdef", "dirty": False}) == "0123456789"
    assert commit_label({"commit": "0123456789abcdef", "dirty": True}) == "0123456789+"
    assert commit_label({"commit": None, "dirty": None}) == "no commit"
