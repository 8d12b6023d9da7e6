"""What no law sees: an adapter that says less than its author thinks.

A misspelt method is one that nobody calls, and a schedule of an unknown name without numbers one that no exact value is known for. Both
end in "not offered", which is no failure, so they are said in words beside the verdict.
"""

import difflib
import inspect

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import settings_of
from ddpm_ref.conformance.lawbook.truth import DEFINITIONS
from ddpm_ref.conformance.limit import PASSING
from ddpm_ref.conformance.setting import Setting
from ddpm_ref.conformance.witness import described

_CLOSE = 0.8


def remarks(implementation: Implementation) -> tuple[str, ...]:
    """Sentences about what is probably a slip of the adapter."""
    kind = type(implementation)
    return (*_names(kind), *_nothing(kind), *_settings(implementation))


def _names(kind: type[Implementation]) -> list[str]:
    """Names of the adapter's own that are nearly one of the interface, which it leaves as it is."""
    public = [name for name in vars(Implementation) if not name.startswith("_")]
    untouched = [n for n in public if inspect.getattr_static(kind, n) is vars(Implementation)[n]]
    said = []
    for name in dir(kind):
        near = difflib.get_close_matches(name.lower(), untouched, n=1, cutoff=_CLOSE)
        if near and name not in public and not name.startswith("_"):
            said.append(f"{name} is no name of Implementation and is never called: {near[0]}?")
    return said


def _nothing(kind: type[Implementation]) -> list[str]:
    methods = {n for n, value in vars(Implementation).items() if inspect.isfunction(value)}
    asked = methods - {"settings", "index", "_missing"}
    same = all(inspect.getattr_static(kind, n) is vars(Implementation)[n] for n in asked)
    return ["no method of Implementation is filled in: nothing was verified"] if same else []


def _settings(implementation: Implementation) -> list[str]:
    try:
        found = list(settings_of(implementation))
    except PASSING:
        raise
    except BaseException as failure:  # theirs; the laws go on with what needs no schedule
        return [f"every law about a schedule fails for one reason: {described(failure)}"]
    if not found:
        return ["settings() is empty: no law about a schedule was asked"]
    return [_unknown(each) for each in found if not _known(each)]


def _known(setting: Setting) -> bool:
    return setting.name in DEFINITIONS or setting.beta is not None or setting.log_snr is not None


def _unknown(setting: Setting) -> str:
    near = difflib.get_close_matches(setting.name.lower(), DEFINITIONS, n=1)
    hint = f"{near[0]!r}? " if near else ""
    return (
        f"the schedule {setting.name!r} is not known by name and has no numbers, so that no exact value is known for it: {hint}"
        f"Known are {', '.join(DEFINITIONS)}; give any other as Setting({setting.name!r}, {setting.T}, beta=(…))"
    )
