"""`ddpm-bench weights`: the printed formulas are right, and the printed values are the library's."""

import mpmath
import pytest
import torch

from bench.__main__ import main
from bench.measure.laws.weight_table import FIRST_STEP, FORMULAS, SPACES, formula, weight_rows
from ddpm_ref.objective import WEIGHTINGS
from ddpm_ref.schedule import linear_schedule, rescale_to_zero_terminal_snr

STEPS = (1, 2, 10, 499, 997, 1000)
PARAMETERS = {"min_snr": {"gamma": 5}, "p2": {"k": 1, "gamma": 1}}


def symbols(step: int, T: int = 1000) -> dict[str, mpmath.mpf]:
    """The table's symbols at one step of the linear schedule, with 50 digits, from β alone."""
    start, end = mpmath.mpf("0.0001"), mpmath.mpf("0.02")
    beta = [start + (end - start) * i / (T - 1) for i in range(T)]
    bar = [mpmath.mpf(1)]
    for value in beta:
        bar.append(bar[-1] * (1 - value))
    left, before = 1 - bar[step], 1 - bar[step - 1]
    return {
        "S": bar[step] / left,
        "S_prev": bar[step - 1] / before if step > 1 else mpmath.inf,
        "beta": beta[step - 1],
        "c": bar[step - 1] * beta[step - 1] ** 2 / left**2,
        "posterior_variance": beta[step - 1] * before / left,
    }


@pytest.mark.parametrize("step", STEPS)
def test_each_formula_evaluated_with_50_digits_is_the_weight(step: int) -> None:
    with mpmath.workdps(50):
        known = symbols(step)
        for row in weight_rows(linear_schedule(1000), [step]):
            text = row.formula
            if step == 1:
                text = FIRST_STEP.get(row.weighting, {}).get(row.space, text)
            scope = {"min": min, "max": max, **known, **PARAMETERS.get(row.weighting, {})}
            exact = eval(text, {"__builtins__": {}}, scope)
            # 1e-12 is the contract's accuracy of every table; the exponential of ln w adds a few ulp.
            assert row.values[0] == pytest.approx(float(exact), rel=1e-12), (row, text)


def test_every_weighting_has_its_formulas() -> None:
    assert set(FORMULAS) == set(WEIGHTINGS)
    assert all(set(rows) == set(SPACES) for rows in [*FORMULAS.values(), *FIRST_STEP.values()])


def test_a_weighting_that_the_table_does_not_know_gets_the_general_quotient() -> None:
    assert formula("something_new", "v") == "w/(S + 1)"


def test_undefined_at_zero_terminal_snr_is_said_with_its_reason() -> None:
    rows = weight_rows(rescale_to_zero_terminal_snr(linear_schedule(1000)), [1000])
    simple_x0 = next(r for r in rows if (r.weighting, r.space) == ("simple_x0", "eps"))
    assert simple_x0.values == (None,)
    assert "zero terminal SNR" in simple_x0.reasons[0]


def test_the_command_prints_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "--t", "2,10"]) == 0
    printed = capsys.readouterr().out
    for name in WEIGHTINGS:
        assert f"\n{name}\n" in printed
    assert printed.count("min(S, gamma)/(S + 1)") == 1
    value = torch.tensor([10])
    from ddpm_ref.objective import weight

    cell = weight("min_snr", value, linear_schedule(1000), parameterization="v").item()
    assert f"{cell:.6g}" in printed


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--t", "0"], "from 1 to 1000"),
        (["--t", "1001"], "from 1 to 1000"),
        (["--t", "one"], "whole numbers"),
        (["--schedule", "linaer"], "'linear'"),
        (["--weighting", "minsnr"], "'min_snr'"),
        (["--T", "0"], "T >= 1"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_2(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert hint in captured.err
    assert not captured.out


@pytest.mark.parametrize(("T", "columns"), [("1", 1), ("10", 2), ("998", 3), ("1000", 4)])
def test_without_steps_the_usual_ones_within_the_schedule_are_shown(T, columns, capsys) -> None:
    assert main(["weights", "--T", T, "--weighting", "simple"]) == 0
    header = capsys.readouterr().out.splitlines()[3]
    assert header.count("t =") == columns


@pytest.mark.parametrize("text", ["", ",", "1,,2", "1.5", "1e3", "1 2"])
def test_steps_are_whole_numbers_between_commas(text, capsys) -> None:
    assert main(["weights", "--t", text]) == 2
    assert f"--t {text!r}: give whole numbers" in capsys.readouterr().err
