"""What is imported is declared in pyproject.toml, and what is declared is imported."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from bench.terminal import usage
from tests.test_architecture import imported, sources

pytestmark = pytest.mark.any_torch

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
OURS = {"bench", "ddpm_ref"}
BY_NAME = {"pytest-benchmark"}
"""Used through pytest's fixture, not by an import."""
BROUGHT = {"cycler": "matplotlib", "markupsafe": "jinja2", "triton": "torch"}
"""Parts of a library that it installs under a name of their own."""
CHECKOUTS = {"ldm": "latent-diffusion", "training": "EDM"}
"""Modules of repositories that a user has checked out: `--against NAME:PATH` puts the path in front."""


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\[<>=!~ ;]", text)[0].lower() for text in requirements}
    return found - {PROJECT["name"]}


BASE = names(PROJECT["dependencies"])
BENCH = names(PROJECT["optional-dependencies"]["bench"])
OPTIONAL = set().union(*map(names, PROJECT["optional-dependencies"].values()))


def third_party(package: str) -> set[str]:
    """Distributions that a package of ours imports anywhere."""
    roots = {
        name.partition(".")[0]
        for path in sources(package)
        for name in imported(path, top_level_only=False)
    }
    roots -= OURS | set(sys.stdlib_module_names)
    return {usage._PACKAGE_OF.get(root, root).lower().replace("_", "-") for root in roots}


def test_what_is_imported_is_declared() -> None:
    assert (
        third_party("ddpm_ref") | third_party("bench")
        <= BASE | OPTIONAL | BROUGHT.keys() | CHECKOUTS.keys()
    )


def test_what_is_declared_is_imported() -> None:
    assert third_party("ddpm_ref") | third_party("bench") | BY_NAME >= BASE | BENCH


def test_the_remedy_for_a_missing_package_is_the_extra_that_has_it() -> None:
    assert BENCH == usage._IN_BENCH
    assert "[bench]" in str(usage.missing_package("sklearn.datasets"))
    assert str(usage.missing_package("diffusers")).endswith("pip install diffusers")


@pytest.mark.parametrize("extra", ["lint", "test", "docs"])
def test_tools_are_never_needed_by_the_program(extra: str) -> None:
    tools = names(PROJECT["optional-dependencies"][extra]) - BENCH
    assert not tools & (third_party("ddpm_ref") | third_party("bench"))
