"""The laws in one call, for other projects: `check_diffusion(MyAdapter())`.

The interface is that of scikit-learn's `check_estimator`: failures that are known are named with their reason and do not raise, a callback sees
each result as it comes, and everything comes back as a list of dictionaries.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.judge import ADAPTER, Outcome
from ddpm_ref.conformance.lawbook import LAWS, Law
from ddpm_ref.conformance.runner import examine, explain
from ddpm_ref.validation import unknown_name

Result = dict[str, Any]

_ON_FAIL = ("raise", "warn", None)


class AdapterError(TypeError):
    """An adapter does not keep to the interface, so that nothing was learned about the code behind it."""


class LawWarning(UserWarning):
    """A law fails, or one holds that was expected to fail."""


def check_diffusion(
    adapter: Implementation,
    *,
    expected_failures: Mapping[str, str] | None = None,
    on_fail: str | None = "raise",
    callback: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Every law on an implementation, one dictionary for each law and dtype.

        check_diffusion(MyAdapter(), expected_failures={"I8-tails": "our decoder is a tanh, issue 12"})

    Args:
        adapter: the implementation.
        expected_failures: id of a law (`I8-tails`) or an invariant (`I8`) → why it is known to fail.
        on_fail: `raise` one AssertionError for all failures once every law was asked, `warn` (`LawWarning`) for each, or None.
        callback: called with each result as it comes.

    Returns:
        `{law, title, method, status, classification, error, tolerance, unit, dtype, message, witness, snippet, statement, reason}`, where
        `status` is `pass`, `fail`, `error` (it raised), `not-offered`, `xfail` (fails as expected) or `xpass` (holds, though expected
        to fail, which warns); `classification` of a failure is `bug`, `severe`, `precision`, `convention` or `adapter`; `unit` is what
        `error` and `tolerance` count; `reason` is that of the expected failure.

    Raises:
        AssertionError: laws that fail, other than as a convention.
        AdapterError: the adapter itself is wrong: its signatures, the types of its results, `settings`.
        ValueError: an expected failure that names no law (with the nearest), or another `on_fail`.
        TypeError: `adapter` is a class, or not an `Implementation`.
    """
    if not isinstance(adapter, Implementation):
        raise TypeError(
            f"adapter = {adapter!r}: pass an instance of a class that derives from Implementation, MyAdapter()"
        )
    if on_fail not in _ON_FAIL:
        raise ValueError(f"on_fail = {on_fail!r}; it is one of {_ON_FAIL}")
    known = _expected(expected_failures or {})
    results: list[Result] = []
    texts: list[str] = []
    for law in LAWS.values():
        for outcome in examine(law, adapter):
            results.append(_result(law, outcome, known.get(law.id)))
            if callback is not None:
                callback(results[-1])
            if _counts(results[-1]):
                texts.append(explain(law, outcome))
            if on_fail is not None:
                _warn(results[-1], texts, each=on_fail == "warn")
    if on_fail == "raise":
        _raise(results, texts)
    return results


def _expected(failures: Mapping[str, str]) -> dict[str, str]:
    """Reason by id of a law, invariants spelt out."""
    invariants = {law.invariant for law in LAWS.values()}
    for name in failures:
        if name not in LAWS and name not in invariants:
            raise unknown_name("law", name, {*LAWS, *invariants})
    return {
        law.id: failures.get(law.id, failures.get(law.invariant, ""))
        for law in LAWS.values()
        if law.id in failures or law.invariant in failures
    }


def _result(law: Law, outcome: Outcome, reason: str | None) -> Result:
    status = outcome.status
    if reason is not None and outcome.classification != ADAPTER:
        status = {"fail": "xfail", "error": "xfail", "pass": "xpass"}.get(status, status)
    return {
        "law": law.id,
        "title": law.title,
        "method": None if outcome.witness is None else outcome.witness["method"],
        "status": status,
        "classification": outcome.classification,
        "error": outcome.error,
        "tolerance": outcome.tolerance,
        "unit": law.unit,
        "dtype": outcome.dtype,
        "cases": outcome.cases,
        "message": outcome.message,
        "convention": outcome.convention,
        "witness": outcome.witness,
        "snippet": outcome.snippet,
        "statement": law.statement,
        "reason": reason,
    }


def _counts(result: Result) -> bool:
    """A failure that nobody expected and no declared convention explains."""
    return result["status"] in ("fail", "error") and result["classification"] != "convention"


def _warn(result: Result, texts: list[str], *, each: bool) -> None:
    if result["status"] == "xpass":
        said = f"{result['law']} holds in {result['dtype']}, though it was expected to fail: {result['reason']}"
        warnings.warn(said, LawWarning, stacklevel=3)
    if each and _counts(result):
        warnings.warn(texts[-1], LawWarning, stacklevel=3)


def _raise(results: Iterable[Result], texts: list[str]) -> None:
    wrong = [r for r in results if r["classification"] == ADAPTER]
    if wrong:
        raise AdapterError("\n".join(dict.fromkeys(r["message"] for r in wrong)))
    if texts:
        raise AssertionError("\n\n".join(texts))
