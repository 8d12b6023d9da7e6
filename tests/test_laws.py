"""The laws hold for this project, and the judge reports every way in which an implementation can fail."""

import json
import tomllib
import unittest
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.measure.laws.ours import BenchReference
from ddpm_ref import process
from ddpm_ref.conformance import (
    Bound,
    Convention,
    Implementation,
    NotOffered,
    Reference,
    Setting,
    laws,
)
from ddpm_ref.conformance.judge import judge
from ddpm_ref.conformance.lawbook import LAWS, Law
from ddpm_ref.conformance.mutants import MUTANTS
from ddpm_ref.conformance.runner import (
    LawTest,
    examine,
    explain,
    law_test,
    verify,
)
from ddpm_ref.schedule import Schedule

FLOAT64 = torch.float64


@pytest.mark.parametrize("law", laws())
def test_holds_here(law: LawTest) -> None:
    law(BenchReference())


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.id)
def test_row_is_complete(law: Law) -> None:
    words = (law.id, law.title, law.statement, law.derivation, law.source, law.reason)
    assert all(len(text) > 3 for text in words)
    assert law.tolerances
    assert law.invariant in law.id


def test_all_twenty_five_invariants_are_there() -> None:
    found = {law.invariant for law in LAWS.values()}
    assert found >= {f"I{k}" for k in range(1, 26)}


class OwnSampler(Implementation):
    """One function and one schedule: what a newcomer brings."""

    name = "own"
    first_index = 0

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 1000),)

    def kept(self) -> Tensor:
        return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self.kept()[self.index(t)].reshape(-1, *[1] * (x0.ndim - 1))
        dtype = torch.float64 if x0.dtype == FLOAT64 else torch.float32
        a, s = kept.sqrt().to(dtype), (1 - kept).sqrt().to(dtype)
        return (a * x0.to(dtype) + s * noise.to(dtype)).to(x0.dtype)


def test_one_function_is_enough_for_a_verdict() -> None:
    outcomes = verify(OwnSampler())
    assert {o.law for o in outcomes if o.status == "pass"} == {
        *("I1-marginal", "I15-noise", "I29-form", "I17-separable", "I14-finite"),
        *("I31-gradient", "I29-results", "I32-layout"),
        *("I18-unchanged", "I18-repeatable", "I18-own", "I18-state", "I18-history"),
    }
    assert all(o.status in ("pass", "not-offered") for o in outcomes)


class OffByOne(OwnSampler):
    """Counts from 0 and says that it counts from 1."""

    first_index = 1

    def kept(self) -> Tensor:
        kept = super().kept()
        return torch.cat([kept, kept[-1:]])


def test_a_planted_defect_is_found_with_its_smallest_input_and_a_snippet_that_shows_it() -> None:
    (outcome, *_) = examine(LAWS["I1-marginal"], OffByOne())
    assert (outcome.status, outcome.classification) == ("fail", "bug")
    assert outcome.witness is not None
    assert outcome.witness["arguments"]["x0"] == [
        [pytest.approx(outcome.witness["arguments"]["x0"][0][0])]
    ]
    (t,) = outcome.witness["arguments"]["t"]
    assert f"t={t}" in outcome.message
    assert float(outcome.witness["exact"]) == pytest.approx(outcome.witness["expected"], rel=1e-12)
    json.dumps(outcome.witness, allow_nan=False)
    namespace: dict[str, object] = {}
    lines = [line for line in outcome.snippet.splitlines() if "import OffByOne" not in line]
    exec("\n".join(lines), namespace | {"OffByOne": OffByOne}, namespace)
    result = namespace["result"]
    assert isinstance(result, Tensor)
    assert result.item() == outcome.witness["measured"]


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("one-entry-stale", "I1-marginal"),
        ("one-posterior-stale", "I2-mean"),
        ("one-posterior-stale", "I2-posterior-variance"),
        ("one-posterior-stale", "I20-posterior"),
        ("one-target-stale", "I3-target"),
        ("one-conversion-stale", "I3-conversion"),
        ("one-step-stale", "I16-ancestral"),
        ("one-step-stale", "I16-ddim"),
        ("one-weight-stale", "I7-definition"),
        ("one-weight-stale", "I5-weight"),
    ],
)
def test_one_wrong_entry_inside_a_table_is_found_and_shown_alone(name: str, law: str) -> None:
    outcome = judge(LAWS[law], MUTANTS[name].build(Reference), FLOAT64)
    assert outcome.failed
    assert outcome.witness is not None
    witness = outcome.witness
    tensors = [value for value in witness["arguments"].values() if isinstance(value, list)]
    assert all(len(value) == 1 for value in tensors)
    steps = witness["arguments"]["setting"]["T"]
    assert witness["arguments"]["t"] == [steps // 3]
    assert witness["measured"] != witness["expected"]
    assert float(witness["exact"]) == pytest.approx(witness["expected"], rel=1e-12)


class OneReverseVarianceWrong(Reference):
    name = "one reverse variance wrong"

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        value, log_value = super().reverse_variance(setting, variance, t)
        return torch.where(t == 77, 2.0, 1.0) * value, log_value


def test_one_wrong_reverse_variance_is_found_and_shown_alone() -> None:
    outcome = judge(LAWS["I20-reverse"], OneReverseVarianceWrong(), FLOAT64)
    assert outcome.witness is not None
    assert outcome.witness["arguments"]["t"] == [77]


class WrongInCompany(OwnSampler):
    """Right for one sample, wrong for hundreds; `refuses` the single ones instead."""

    refuses = False

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if self.refuses and len(t) == 1 and t.item() == 400:
            raise NotOffered("a single sample")
        return super().q_sample(setting, x0, t, noise) + (t == 400).reshape(-1, 1) * (len(t) > 100)


@pytest.mark.parametrize("refuses", [False, True])
def test_what_fails_only_in_a_batch_is_shown_in_its_batch(refuses: bool) -> None:
    implementation = WrongInCompany()
    implementation.refuses = refuses
    outcome = judge(LAWS["I1-marginal"], implementation, FLOAT64)
    assert outcome.status == "fail"
    assert outcome.witness is not None
    assert outcome.witness["index"] == [399, 0]
    assert "t=400" in outcome.message


class Raises(OwnSampler):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        raise KeyError("no such table")


class WrongShape(OwnSampler):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, x0, t, noise).flatten()


class Nan(OwnSampler):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, x0, t, noise) * torch.nan


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (Raises, "error", "raised KeyError"),
        (WrongShape, "fail", "has shape [3], expected [1, 3]"),
        (Nan, "fail", "= nan, expected"),
    ],
)
def test_breakage_is_reported_and_the_other_laws_still_run(
    kind: type[Implementation], status: str, words: str
) -> None:
    chosen = [test.law for test in laws("I1", "I9", "I17", "I29")]
    outcomes = verify(kind(), chosen)
    (marginal, *_) = (o for o in outcomes if o.law == "I1-marginal")
    assert marginal.status == status
    assert words in marginal.message
    assert marginal.error == float("inf")
    assert {o.law for o in outcomes} == {law.id for law in chosen}


def test_an_exception_names_file_and_line() -> None:
    (outcome, *_) = examine(LAWS["I1-marginal"], Raises())
    assert "test_laws.py:" in outcome.message


class SinglePrecision(OwnSampler):
    """Right formulas on float32 tables."""

    table_dtype = torch.float32

    def kept(self) -> Tensor:
        return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).double()


def test_declared_float32_tables_are_rounding() -> None:
    (outcome, *_) = examine(LAWS["I1-marginal"], SinglePrecision())
    assert outcome.status == "pass"


def test_what_declared_tables_explain_when_their_errors_add_up_is_precision() -> None:
    """Every factor of the product off in the same direction: more than a random walk, less than a wrong formula."""

    class Drifts(SinglePrecision):
        def kept(self) -> Tensor:
            return super().kept() * (1 + 2.0**-24) ** torch.arange(1000, dtype=torch.float64)

    class Bends(SinglePrecision):
        def kept(self) -> Tensor:
            return super().kept() * (1 + 1e-4) ** torch.arange(1000, dtype=torch.float64)

    (outcome, *_) = examine(LAWS["I1-marginal"], Drifts())
    assert outcome.classification in (None, "precision")
    (outcome, *_) = examine(LAWS["I1-marginal"], Bends())
    assert outcome.classification == "bug"


def test_the_same_error_without_the_declaration_is_a_bug() -> None:
    class Undeclared(SinglePrecision):
        table_dtype = torch.float64

    (outcome, *_) = examine(LAWS["I1-marginal"], Undeclared())
    assert outcome.classification == "bug"


class RoundsEarly(OwnSampler):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self.kept()[self.index(t)].reshape(-1, *[1] * (x0.ndim - 1)).to(x0.dtype)
        return kept.sqrt() * x0 + (1 - kept).sqrt() * noise


def test_what_holds_in_float64_and_fails_below_is_precision() -> None:
    outcomes = examine(LAWS["I15-noise"], RoundsEarly())
    assert outcomes[0].status == "pass"
    assert [o.classification for o in outcomes[1:]] == ["precision", "severe", "severe"]


class SigmaSpace(OwnSampler):
    """x0 + σ ε, with the reading that brings it back."""

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self.kept()[self.index(t)].reshape(-1, *[1] * (x0.ndim - 1))
        return super().q_sample(setting, x0, t, noise) / kept.sqrt().to(x0.dtype)


class Rescaled(SigmaSpace):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self.kept()[self.index(t)].reshape(-1, *[1] * (x0.ndim - 1))
        return super().q_sample(setting, x0, t, noise) * kept.sqrt().to(x0.dtype)


def test_a_declared_convention_is_neither_bug_nor_pass() -> None:
    implementation = SigmaSpace()
    implementation.conventions = (
        Convention("sigma space", "x_t is x0 + σ ε", "its documentation", Rescaled, ("I1",)),
    )
    (outcome, *_) = examine(LAWS["I1-marginal"], implementation)
    assert (outcome.status, outcome.classification) == ("fail", "convention")
    assert outcome.convention is not None
    assert outcome.convention.startswith("sigma space")


def test_a_convention_excuses_the_laws_that_it_names_and_reads_the_class_under_test() -> None:
    sigma = Convention("sigma space", "x_t is x0 + σ ε", "its documentation", Rescaled, ("I15",))
    implementation = SigmaSpace()
    implementation.conventions = (sigma,)
    (outcome, *_) = examine(LAWS["I1-marginal"], implementation)
    assert outcome.classification == "bug"

    class Fork(SigmaSpace):
        factor = 1.0
        conventions = (replace(sigma, laws=("I1-marginal",)),)

        def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            return self.factor * super().q_sample(setting, x0, t, noise)

    assert examine(LAWS["I1-marginal"], Fork())[0].classification == "convention"
    fork = Fork()
    fork.factor = (
        2.0  # a state of this one instance, which a reading of the stock class would not have
    )
    assert examine(LAWS["I1-marginal"], fork)[0].classification == "bug"


@pytest.mark.parametrize("words", [{"laws": ()}, {"laws": "I1"}, {"reading": lambda: 1 / 0}])
def test_a_convention_without_laws_or_a_class_is_refused(words: dict) -> None:
    fields = {"name": "n", "statement": "s", "source": "p", "reading": Rescaled, "laws": ("I1",)}
    with pytest.raises(TypeError, match="of the convention 'n'"):
        Convention(**{**fields, **words})


class WritesInto(OwnSampler):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        result = super().q_sample(setting, x0, t, noise)
        noise.zero_()
        return result


def test_writing_into_the_inputs_fails_one_law_and_spoils_no_other() -> None:
    assert judge(LAWS["I1-marginal"], WritesInto(), FLOAT64).status == "pass"
    assert judge(LAWS["I18-unchanged"], WritesInto(), FLOAT64).status == "fail"


def test_as_a_test_case_it_raises_with_the_reason_and_skips_where_nothing_is_offered() -> None:
    with pytest.raises(AssertionError, match="I1-marginal marginal of x_t") as caught:
        law_test("I1-marginal")(OffByOne())
    assert "holds:" in str(caught.value)
    assert "print(result)" in str(caught.value)
    with pytest.raises(unittest.SkipTest, match="own offers no"):
        law_test("I9-kl")(OwnSampler())


def test_cases_are_named_selected_and_allowed() -> None:
    assert [test.__name__ for test in islice(laws("I8-sum", "I22"), 2)] == ["I8-sum", "I22-ema"]
    with pytest.raises(ValueError, match="unknown law 'I8-tail'.*I8-tails"):
        list(laws("I8-tail"))
    (lenient,) = laws("I1-marginal", allow=("precision",))
    lenient(SinglePrecision())


def test_unknown_schedules_are_left_out() -> None:
    class Strange(OwnSampler):
        def settings(self) -> tuple[Setting, ...]:
            return (Setting("exotic", 10),)

    assert judge(LAWS["I1-marginal"], Strange(), FLOAT64).status == "not-offered"


def test_a_schedule_of_ones_own_is_judged_by_its_beta() -> None:
    beta = tuple((0.05 + 0.01 * torch.arange(7, dtype=torch.float64)).tolist())

    class Mine(Reference):
        def settings(self) -> tuple[Setting, ...]:
            return (Setting("mine", 7, beta=beta),)

    for name in ("I24-alpha-bar", "I2-mean", "I5-weight", "I12-value"):
        assert judge(LAWS[name], Mine(), FLOAT64).status == "pass"


def test_refusing_an_undefined_conversion_is_right_and_inventing_one_is_not() -> None:
    class Invents(Reference):
        def convert(
            self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
        ) -> Tensor:
            return prediction

    assert judge(LAWS["I25-conversion"], Reference(), FLOAT64).status == "pass"
    assert judge(LAWS["I25-conversion"], Invents(), FLOAT64).status == "fail"


def test_a_refused_schedule_is_no_failure() -> None:
    class Refuses(Reference):
        def tables(self, setting: Setting) -> Mapping[str, Tensor]:
            if setting.T < 20:
                raise ValueError("T < 20")
            return super().tables(setting)

    assert judge(LAWS["I24-beta"], Refuses(), FLOAT64).status == "pass"


@pytest.mark.parametrize("end", ["second", "beta"])
def test_both_ways_to_begin_the_learned_range_are_right_and_a_floor_is_not(end: str) -> None:
    """Nichol & Dhariwal's code begins at ln β̃_2; β_1 is what both fixed variances take for the decoder."""

    class Begins(Reference):
        floor: float | None = None

        def learned_variance(
            self, setting: Setting, meaning: str, said: Tensor, t: Tensor
        ) -> tuple[Tensor, Tensor]:
            beta, small = (
                self.tables(setting)[name][: min(2, setting.steps)]
                for name in ("beta", "posterior_variance")
            )
            low = small[-1:] if end == "second" and len(small) > 1 else beta[:1]
            low = low if self.floor is None else torch.full_like(low, self.floor)
            logarithm = said * beta[0].log() + (1 - said) * low.log()
            return logarithm.exp(), logarithm

    assert judge(LAWS["I20-range-first"], Begins(), FLOAT64).status == "pass"
    begins = Begins()
    begins.floor = 1e-20
    assert judge(LAWS["I20-range-first"], begins, FLOAT64).status == "fail"


@pytest.mark.parametrize("law", ["I12-entropy", "I12-tight"])
def test_expected_bounds_are_watched_to_a_tenth_of_a_billionth(law: str) -> None:
    class Off(Reference):
        off = 0.0

        def gaussian_bound(
            self, setting: Setting, mean: Tensor, covariance: Tensor, variance: str
        ) -> Bound:
            floor = Reference().gaussian_entropy(covariance)
            return Bound(total=torch.tensor([floor - self.off], dtype=FLOAT64))

    assert judge(LAWS[law], Off(), FLOAT64).status == "pass"
    wrong = Off()
    wrong.off = 2e-10
    assert judge(LAWS[law], wrong, FLOAT64).status == "fail"


def test_the_explanation_says_what_should_hold_and_what_was_found() -> None:
    (outcome, *_) = examine(LAWS["I1-marginal"], OffByOne())
    words = explain(LAWS["I1-marginal"], outcome)
    assert "bug" in words
    assert "q_sample" in words
    assert (
        explain(LAWS["I1-marginal"], replace(outcome, classification=None)).count("unclassified")
        == 1
    )


def test_a_defect_in_the_reference_is_no_rounding_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Truth and allowance have no part of the code under test: its own defect is a bug like anybody's."""
    right = process.posterior_coefficients

    def wrong(t: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        on_x0, on_x_t = right(t, schedule)
        return on_x0, on_x_t * 1.001

    monkeypatch.setattr(process, "posterior_coefficients", wrong)
    outcomes = examine(LAWS["I2-mean"], Reference())
    assert outcomes[0].dtype == "float64"
    assert outcomes[0].classification == "bug"


def test_our_own_version_is_recorded_as_the_libraries_are() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert Reference().version == project["version"]


class Empty(Implementation):
    """Returns what holds no tensor."""

    name = "empty"

    def settings(self):
        return (Setting("linear", 7),)

    def tables(self, setting):
        return 3

    def q_sample(self, setting, x0, t, noise):
        return ()


@pytest.mark.parametrize(
    "id", ["I24-beta", "I25-terminal", "I14-tables", "I17-separable", "I14-finite"]
)
def test_a_law_does_not_hold_over_nothing(id) -> None:
    outcome = judge(LAWS[id], Empty(), torch.float64)
    assert outcome.status == "error"
    wanted = "a dict of torch.Tensors" if "tables" in outcome.message else "a torch.Tensor"
    wanted += " is expected (raise NotOffered for what you lack) (test_laws.py:"
    assert wanted in outcome.message
