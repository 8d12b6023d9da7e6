"""The laws on code that somebody else wrote from the papers: right, it passes; with a defect, it is refused by name."""

import pytest
import torch
from torch import Tensor

from ddpm_ref.conformance import Bound, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.runner import examine
from tests.independent.calls import SETTINGS, calls
from tests.independent.defects import FROZEN
from tests.independent.measure import Baseline, Found, measure
from tests.independent.minimal import MINIMAL
from tests.independent.notes import Notes
from tests.independent.right import Right

pytestmark = pytest.mark.any_torch

SAMPLE = {
    "objectives/velocity-mirrored": "I3-target",
    "objectives/hybrid-without-steps": "I21-hybrid",
    "bounds/bits-in-nats": "I10-bits",
    "bounds/decoder-by-tanh": "I8-value",
    "bounds/prior-averaged": "I9-prior",
    "schedules/cosine-uncapped": "I24-alpha-bar",
    "schedules/coefficients-cast-first": "I15-noise",
    "schedules/fixed-large-with-small-first-log": "I20-consistent",
    "chains/one-point-too-many": "I11-count",
    "chains/decay-on-the-new-value": "I22-ema",
}


def test_half_of_the_defects_are_ordinary_and_every_method_has_some() -> None:
    kinds = [defect.kind for defect in FROZEN.values()]
    assert len(kinds) >= 150
    assert 0.4 < kinds.count("ordinary") / len(kinds) < 0.6
    methods = {method for method, _ in calls(SETTINGS[0])}
    later = {"rank_limited_excess"}  # in the interface only since the first set was frozen
    assert {defect.method for defect in FROZEN.values()} == methods - later


def test_descriptions_say_what_is_wrong() -> None:
    assert all(len(defect.description) > 5 for defect in FROZEN.values())
    assert len({defect.description for defect in FROZEN.values()}) == len(FROZEN)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_law_kills_and_names_a_defect(name: str) -> None:
    law, defect = SAMPLE[name], FROZEN[name]
    reached, about = frozenset(vars(defect.build)), frozenset(defect.cause)
    found = measure(defect, Baseline({law: reached}, {law: about}, {law: 0.0}))
    assert found.killed
    assert found.named


@pytest.mark.parametrize("law", sorted(set(SAMPLE.values())))
def test_the_right_implementation_passes_it(law: str) -> None:
    outcomes = examine(LAWS[law], Right())
    assert [outcome.status for outcome in outcomes] == ["pass"] * len(outcomes)


@pytest.mark.parametrize("kind", MINIMAL, ids=lambda kind: kind.name)
def test_plain_right_code_has_no_bug(kind: type[Implementation]) -> None:
    """All laws, a few seconds each: the point is that none of them, whatever it asks, accuses right code."""
    failures = [o for law in LAWS.values() for o in examine(law, kind()) if o.failed]
    accused = {f"{o.law} {o.dtype}": o.message for o in failures if o.classification != "precision"}
    assert not accused


def test_notes_are_read_back_unless_the_laws_have_changed(tmp_path, monkeypatch) -> None:
    known = Baseline({"I1": frozenset({"q_sample"})}, {"I1": frozenset({"ema"})}, {"I1": 0.5})
    row = Found(
        "a", "crafty", ("ema",), "words", True, True, False, ("bug",), {"I1 float64": "ema"}, {}
    )
    first = Notes(tmp_path / "notes.jsonl")
    first.keep_baseline(known)
    first.keep("x/a", row)
    again = Notes(tmp_path / "notes.jsonl")
    assert (again.baseline, again.found) == (known, {"x/a": row})
    monkeypatch.setattr("tests.independent.notes.stamp", lambda: "other laws")
    assert Notes(tmp_path / "notes.jsonl").baseline is None


def _parts(result: object) -> list[Tensor]:
    if isinstance(result, Posterior | Bound):
        result = [value for value in vars(result).values() if value is not None]
    if isinstance(result, dict):
        result = list(result.values())
    values = result if isinstance(result, list | tuple) else [result]
    return [value for value in values if isinstance(value, Tensor)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_every_method_answers_with_numbers(setting: object) -> None:
    for method, arguments in calls(setting):
        result = getattr(Right(), method)(*arguments)
        for part in _parts(result):
            assert not bool(part.isnan().any()), method


def test_unknown_schedules_are_not_offered() -> None:
    from ddpm_ref.conformance import Setting

    with pytest.raises(NotOffered):
        Right().tables(Setting("moonlight", 10))


def test_steps_are_checked() -> None:
    with pytest.raises(ValueError, match="steps count from 1"):
        Right().q_sample(SETTINGS[1], torch.ones(1, 2), torch.tensor([0]), torch.ones(1, 2))
    with pytest.raises(TypeError, match="integers"):
        Right().q_sample(SETTINGS[1], torch.ones(1, 2), torch.tensor([1.0]), torch.ones(1, 2))
