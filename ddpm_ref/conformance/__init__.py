"""Laws that any implementation of a diffusion objective must obey, adapters that put one under them, and their mutants.

    @pytest.mark.parametrize("law", ddpm_ref.conformance.laws())
    def test_law(law):
        law(MyAdapter())

or all of them in one call, `check_diffusion(MyAdapter())`.

`implementation` says what an adapter may offer, `lawbook` holds the statements with their derivations, `judge` runs one law, `runner` runs
all of them and classifies failures, `check` does so in one call for other projects, `reference` is this project under its own laws, `mutants` are the defects that prove that
the laws have teeth.

The names come lazily, the submodules among them: a module of adapters costs no more than the interface until laws are asked for.
"""

from typing import TYPE_CHECKING, Any

from ddpm_ref.conformance.implementation import (
    Bound,
    Convention,
    Implementation,
    Model,
    NotOffered,
    Posterior,
)
from ddpm_ref.conformance.setting import STANDARD_SETTINGS, Setting

if TYPE_CHECKING:
    from ddpm_ref.conformance import adapters, check, judge, lawbook, mutants, reference, runner
    from ddpm_ref.conformance.check import AdapterError, LawWarning, check_diffusion
    from ddpm_ref.conformance.judge import Outcome
    from ddpm_ref.conformance.reference import Reference
    from ddpm_ref.conformance.runner import explain, law_test, laws, verify

_LATE = {
    "AdapterError": "check",
    "LawWarning": "check",
    "check_diffusion": "check",
    "Outcome": "judge",
    "Reference": "reference",
    "explain": "runner",
    "law_test": "runner",
    "laws": "runner",
    "verify": "runner",
}
_MODULES = ("adapters", "check", "judge", "lawbook", "mutants", "reference", "runner")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


__all__ = [
    "STANDARD_SETTINGS",
    "AdapterError",
    "Bound",
    "Convention",
    "Implementation",
    "LawWarning",
    "Model",
    "NotOffered",
    "Outcome",
    "Posterior",
    "Reference",
    "Setting",
    "adapters",
    "check",
    "check_diffusion",
    "explain",
    "judge",
    "law_test",
    "lawbook",
    "laws",
    "mutants",
    "reference",
    "runner",
    "verify",
]
