"""`pytest --diffusion-laws FILE.py:CLASS`: the laws as tests of any project, one item a law.

A plugin of pytest (entry point `diffusion-laws`). Without that option it adds nothing to a run and imports nothing beyond the standard
library and pytest. With it:

    --diffusion-laws FILE.py:CLASS           an adapter; may be given several times
    --diffusion-laws-expected FILE           laws that are known to fail, kept in the tested project (default: diffusion-laws-expected.txt, if it is there)
    --diffusion-laws-strict                  an expected failure that passes fails the run (as does pytest's own xfail_strict)

Each line of the file of expected failures is the id of a law (`I8-tails`) or of an invariant (`I8`), then the reason; `#` begins a comment. An expected
failure is pytest's own xfail, so that `-rxX` shows reasons, and an unexpected pass is counted as xpassed. An id that no law has is warned about.
What the adapter does wrong itself (`AdapterError`) is never an expected failure.
"""

import difflib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ddpm_ref.conformance import Implementation
    from ddpm_ref.conformance.lawbook import Law

EXPECTED = "diffusion-laws-expected.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The three options."""
    group = parser.getgroup("diffusion laws", "laws of a diffusion objective (ddpm-bench)")
    group.addoption(
        "--diffusion-laws",
        action="append",
        default=[],
        metavar="FILE.py:CLASS",
        help="run the laws on this adapter, one test each; may be given several times",
    )
    group.addoption(
        "--diffusion-laws-expected",
        metavar="FILE",
        help=f"ids of laws that are known to fail, with reasons (default: {EXPECTED} where it exists)",
    )
    group.addoption(
        "--diffusion-laws-strict",
        action="store_true",
        default=None,
        help="an expected failure that passes fails the run (default: as xfail_strict says)",
    )


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose among the items
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add an item for each adapter and law."""
    references = session.config.getoption("--diffusion-laws")
    if not references:
        return
    expected = read_expected(session.config)
    _warn_unknown(expected)
    for reference in references:
        node = Adapter.from_parent(session, name=reference, expected=expected)
        items += node.collect()


def read_expected(config: pytest.Config) -> dict[str, str]:
    """Reason by id.

    Raises:
        pytest.UsageError: a file that was asked for is not there.
    """
    asked = config.getoption("--diffusion-laws-expected")
    path = config.invocation_params.dir / asked if asked else config.rootpath / EXPECTED
    if not path.is_file():
        if asked:
            raise pytest.UsageError(f"--diffusion-laws-expected {asked}: there is no such file")
        return {}
    lines = (
        line.partition("#")[0].split(maxsplit=1) for line in path.read_text("utf-8").splitlines()
    )
    return {
        words[0].rstrip(":"): words[1].strip() if len(words) > 1 else "no reason given"
        for words in lines
        if words
    }


def _warn_unknown(expected: Mapping[str, str]) -> None:
    from ddpm_ref.conformance.lawbook import LAWS

    known = {*LAWS, *(law.invariant for law in LAWS.values())}
    for name in sorted(set(expected) - known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        warnings.warn(
            pytest.PytestWarning(f"{name!r} among the expected failures is not a law{hint}"),
            stacklevel=2,
        )


class Adapter(pytest.Collector):
    """All laws on one adapter."""

    def __init__(self, *, expected: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        self.expected = expected

    def collect(self) -> "list[LawItem]":
        """One item a law.

        Raises:
            pytest.UsageError: the adapter cannot be built.
        """
        from ddpm_ref.conformance.lawbook import LAWS

        implementation = self._implementation()
        return [
            LawItem.from_parent(self, name=law.id, law=law, implementation=implementation)
            for law in LAWS.values()
        ]

    def _implementation(self) -> "Implementation":
        from bench.terminal.usage import at_home, in_words
        from ddpm_ref.conformance.adapters.from_file import load

        file, colon, kind = self.name.partition(":")
        path = self.config.invocation_params.dir / at_home(file)
        try:
            return load(f"{path}{colon}{kind}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # theirs: its message is what helps
            raise pytest.UsageError(f"--diffusion-laws {self.name}: {in_words(error)}") from error


class LawItem(pytest.Item):
    """One law on one adapter."""

    def __init__(self, *, law: "Law", implementation: "Implementation", **options: Any) -> None:
        super().__init__(**options)
        self.law, self.implementation = law, implementation
        expected = self.parent.expected if isinstance(self.parent, Adapter) else {}
        reason = expected.get(law.id, expected.get(law.invariant))
        if reason is not None:
            strict = self.config.getoption("--diffusion-laws-strict")
            rule = {} if strict is None else {"strict": True}
            self.add_marker(pytest.mark.xfail(reason=reason, raises=AssertionError, **rule))

    def runtest(self) -> None:
        """Ask the law.

        Raises:
            AssertionError: it fails other than as a declared convention.
            AdapterError: the adapter does not keep to the interface.
        """
        from ddpm_ref.conformance.check import AdapterError
        from ddpm_ref.conformance.judge import ADAPTER
        from ddpm_ref.conformance.runner import examine, explain

        outcomes = examine(self.law, self.implementation)
        if wrong := [o.message for o in outcomes if o.classification == ADAPTER]:
            raise AdapterError("\n".join(dict.fromkeys(wrong)))
        if failed := [o for o in outcomes if o.failed and o.classification != "convention"]:
            raise AssertionError("\n\n".join(explain(self.law, each) for each in failed))
        if all(outcome.status == "not-offered" for outcome in outcomes):
            pytest.skip(f"not offered: {outcomes[0].message}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The law's own words; a traceback only where it is not the law that speaks."""
        if excinfo.errisinstance((AssertionError, TypeError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands in a report."""
        return self.path, None, f"{self.law.id} {self.law.title}"


def pytest_report_header(config: pytest.Config) -> Iterator[str] | list[str]:
    """What is under the laws."""
    references = config.getoption("--diffusion-laws")
    return [f"diffusion laws: {', '.join(references)}"] if references else []
