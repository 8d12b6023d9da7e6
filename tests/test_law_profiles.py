"""What the laws ask: gradients with their cotangent, wrong shapes as findings, and the two profiles of `verify`."""

import json

import pytest
import torch
from mpmath import mp
from torch import Tensor

from bench.__main__ import main
from bench.measure.laws.second_opinion.check import double_check
from ddpm_ref.conformance import Reference, Setting
from ddpm_ref.conformance.judge import judge
from ddpm_ref.conformance.lawbook import LAWS, Case
from ddpm_ref.conformance.lawbook.law import Sampled, sample
from ddpm_ref.conformance.witness import witness

SHORT = (
    Setting("cosine", 13),
    Setting("linear", 7, timesteps=(1, 3, 4, 7)),
    Setting("sigmoid", 20, zero_terminal_snr=True),
    Setting("sigmoid", 9, parameters=(("tau", 0.5),)),
)


class Short(Reference):
    """Few steps, and nothing beside them."""

    other_lengths = own_schedules = False

    def settings(self) -> tuple[Setting, ...]:
        return SHORT


GRADIENTS = [
    *LAWS["I31-gradient"].check(Short(), torch.float64),
    *LAWS["I5-loss-gradient"].check(Short(), torch.float64),
]


LAST = {case.label: case for case in GRADIENTS}
"""The last case of each gradient, in the setting with a constant of its own where there is a setting."""


@pytest.mark.parametrize("label", LAST)
def test_a_gradient_has_a_second_opinion_in_50_digits(label: str) -> None:
    """A difference quotient of the value, by formulas that share nothing with the laws', against the laws' derivative."""
    case = LAST[label]
    place = tuple(size - 1 for size in case.expected.shape)
    one = sample(case, place)
    index = tuple(
        0 if axis < 1 or one.expected.shape[axis] == 1 else k for axis, k in enumerate(place)
    )
    shown = witness(one, index, 0.5, label, comparable=True)
    assert "cotangent" in shown["arguments"]
    checked = double_check("I31-gradient", shown)
    assert checked is not None
    assert checked["value"] is not None, checked["by"]
    with mp.workdps(50):
        right, other = mp.mpf(shown["exact"]), mp.mpf(checked["value"])
        assert abs(right - other) <= mp.mpf("1e-20") * (1 + abs(right))
    assert float(right) == pytest.approx(float(one.expected[index]), rel=1e-9, abs=1e-300)


def test_a_wrong_gradient_is_shown_with_its_cotangent() -> None:
    class Doubled(Short):
        def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
            value = super().hybrid_loss(setting, simple, bound_term)
            return value + (simple - simple.detach())

    found = judge(LAWS["I31-gradient"], Doubled(), torch.float64)
    assert found.classification == "bug"
    assert found.witness is not None
    (cotangent,) = found.witness["arguments"]["cotangent"]
    assert found.witness["measured"] == pytest.approx(2 * cotangent)
    assert float(found.witness["exact"]) == pytest.approx(cotangent)
    assert f"cotangent {cotangent:.6g}" in found.message


@pytest.mark.parametrize("law", ["I31-gradient", "I1-marginal"])
def test_a_wrong_shape_is_a_finding_and_no_exception(law: str) -> None:
    class Flat(Short):
        def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            return super().q_sample(setting, x0, t, noise).flatten(1).mean(1)

    found = judge(LAWS[law], Flat(), torch.float64)
    assert (found.status, found.classification) == ("fail", "bug")
    assert "has shape [" in found.message
    assert "raised" not in found.message


def test_a_variance_that_does_not_broadcast_is_a_finding() -> None:
    from ddpm_ref.conformance import Posterior

    class Odd(Short):
        def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
            found = super().posterior(setting, x0, x_t, t)
            return Posterior(found.mean, variance=torch.ones(11, 13), log_variance=torch.ones(11))

    for law in ("I2-posterior-variance", "I20-posterior", "I20-first"):
        found = judge(LAWS[law], Odd(), torch.float64)
        assert (found.status, found.classification) == ("fail", "bug")
        assert "does not broadcast" in found.message


def asked(case: Case) -> tuple[object, ...]:
    """What a case is about."""
    words = tuple(v for v in case.arguments.values() if isinstance(v, str | float | int))
    t = case.arguments.get("t")
    steps = tuple(t.tolist()) if isinstance(t, Tensor) else ()
    return (
        str(case.arguments.get("setting", "")),
        case.label,
        words,
        tuple(case.expected.shape),
        steps,
    )


@pytest.mark.parametrize("law", ["I3-conversion", "I5-loss", "I31-gradient", "I20-range"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_usual_profile_leaves_out_no_kind_and_the_thorough_one_nothing(
    law: str, dtype: torch.dtype
) -> None:
    check = LAWS[law].check
    assert isinstance(check, Sampled)
    usual = [asked(case) for case in check.usual(Short(), dtype)]
    rest = [asked(case) for case in check.rest(Short(), dtype)]
    assert rest
    assert not set(usual) & set(rest)
    assert len(set(usual)) == len(usual)
    for kind in (1, 2):  # quantities, options
        assert {key[kind] for key in usual} >= {key[kind] for key in rest}
    if dtype == torch.float64:
        assert {key[0] for key in usual} >= {key[0] for key in rest}
        own = {str(setting) for setting in SHORT}
        pairs = {(1, 2, 3)} if law == "I31-gradient" else {(0, 1, 2), (1, 2, 3)}
        for kinds in pairs:  # every option in every shape, and of every setting that is its own
            product = {tuple(key[k] for k in kinds) for key in rest if key[0] in own}
            assert {tuple(key[k] for k in kinds) for key in usual} >= product
    whole = list(LAWS[law].cases(Short(), dtype, thorough=True))
    assert len(whole) == len(usual) + len(rest)


def test_a_defect_of_one_combination_is_found_by_the_thorough_profile() -> None:
    """An image, one option, one setting that is not the first: the product that the usual profile leaves out."""

    class Rare(Short):
        def convert(
            self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
        ) -> Tensor:
            found = super().convert(setting, prediction, x_t, t, source, to)
            rare = setting.timesteps is not None and (source, to) == ("v", "score")
            return 1.01 * found if rare and x_t.ndim == 4 else found

    law = LAWS["I3-conversion"]
    assert judge(law, Rare(), torch.float64).status == "pass"
    assert judge(law, Rare(), torch.float64, thorough=True).status == "fail"


def test_the_command_has_both_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    cases = []
    for words in ((), ("--thorough",)):
        assert main(["verify", "--law", "I20-range", "--json", "-", *words]) == 0
        cases.append(sum(row["cases"] for row in json.loads(capsys.readouterr().out)["laws"]))
    assert cases[1] > cases[0]


def test_every_law_is_listed_with_its_statement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for law in LAWS.values():
        assert " ".join(f"{law.id} {law.title} {law.statement}".split()) in printed
    assert main(["verify", "--list", "--law", "I8"]) == 0
    printed = capsys.readouterr().out
    assert "I8-tails" in printed
    assert "I1-marginal" not in printed


def test_the_page_of_the_laws_is_that_of_the_lawbook() -> None:
    from docs.pages import LAWS_PAGE, laws_page

    assert LAWS_PAGE.read_text(encoding="utf-8") == laws_page(), "python -m docs.pages"


def test_every_method_that_is_declared_has_a_law() -> None:
    """A declaration without a law would ask nothing."""
    from ddpm_ref.conformance.agreement.methods import METHODS

    methods = {
        case.method
        for law in LAWS.values()
        if isinstance(law.check, Sampled)
        for case in law.check(Short(), torch.float64)
    }
    assert methods == set(METHODS)
