"""`ddpm-bench weights`: the printed formulas are right, and the printed values are the library's."""

import mpmath
import pytest
import torch

from bench.__main__ import main
from bench.measure.laws.published_weightings import PUBLISHED
from bench.measure.laws.weight_table import FIRST_STEP, FORMULAS, SPACES, formula, weight_rows
from ddpm_ref.objective import WEIGHTINGS
from ddpm_ref.schedule import linear_schedule, rescale_to_zero_terminal_snr

pytestmark = pytest.mark.any_torch

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
        "d": _spacing(bar, step, T),
    }


def _spacing(bar: list[mpmath.mpf], step: int, T: int) -> mpmath.mpf:
    low, high = max(step - 1, 1), min(step + 1, T)
    snr = [mpmath.log(bar[t] / (1 - bar[t])) for t in (low, high)]
    return (snr[0] - snr[1]) / (high - low)


def _normal(x: mpmath.mpf, mean: float, deviation: float) -> mpmath.mpf:
    mean, deviation = mpmath.mpf(str(mean)), mpmath.mpf(str(deviation))
    return mpmath.npdf(x, mean, deviation)


@pytest.mark.parametrize("step", STEPS)
def test_each_formula_evaluated_with_50_digits_is_the_weight(step: int) -> None:
    with mpmath.workdps(50):
        known = symbols(step)
        for row in weight_rows(linear_schedule(1000), [step]):
            text = row.formula
            if step == 1:
                text = FIRST_STEP.get(row.weighting, {}).get(row.space, text)
            functions = {"min": min, "max": max, "sqrt": mpmath.sqrt, "exp": mpmath.exp}
            functions |= {"log": mpmath.log, "normal": _normal}
            scope = {**functions, **known, **PARAMETERS.get(row.weighting, {})}
            exact = eval(text, {"__builtins__": {}}, scope)
            # 1e-12 is the contract's accuracy of every table; the exponential of ln w adds a few ulp.
            assert row.values[0] == pytest.approx(float(exact), rel=1e-12), (row, text)


def test_every_weighting_has_its_formulas() -> None:
    assert set(FORMULAS) == set(WEIGHTINGS)
    assert not set(PUBLISHED) & set(WEIGHTINGS)
    assert all(each.source for each in PUBLISHED.values())
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
    for name in (*WEIGHTINGS, *PUBLISHED):
        assert f"\n{name}\n" in printed
    assert printed.count("min(S, gamma)/(S + 1)") == 1
    value = torch.tensor([10])
    from ddpm_ref.objective import weight

    cell = weight("min_snr", value, linear_schedule(1000), parameterization="v").item()
    assert f"{cell:.6g}" in printed


def test_published_objectives_are_what_their_own_loops_minimize() -> None:
    """∫ over the method's own draw of its noise level against the sum over t with the printed factor, for an error that varies with λ."""
    import numpy as np
    from scipy.integrate import quad
    from scipy.stats import norm

    from ddpm_ref.objective import weight
    from ddpm_ref.schedule import schedule_from_log_snr

    ends = (12.0, -12.0)
    schedule = schedule_from_log_snr(torch.linspace(*ends, 4001, dtype=torch.float64))
    lam = schedule.log_snr[1:].numpy()

    def error(x):  # of x0, the same for all: small where there is little noise
        return np.exp(-x) / (1 + np.exp(-x)) ** 2 * np.exp(-((x / 5) ** 2))

    def s_of(x):
        return 1 / (1 + np.exp(x / 2))

    # Each: ∫ p(z) g(λ(z)) error(λ(z)) dz in the method's own variable z.
    loops = {
        "flow_velocity": quad(lambda s: error(2 * np.log((1 - s) / s)) / s**2, s_of(12), s_of(-12))[0],
        "flow_logit_normal": quad(lambda z: norm.pdf(z) * error(-2 * z) * (1 + np.exp(z)) ** 2 / np.exp(z) ** 2, -6, 6)[0],
        "edm": quad(
            lambda y: norm.pdf(y, -1.2, 1.2) * (np.exp(2 * y) + 0.25) / (np.exp(y) * 0.5) ** 2 * error(-2 * y), -6, 6
        )[0],
        "sigmoid": quad(lambda x: 0.5 * np.exp(x) / (1 + np.exp(x - 2)) * error(x), -12, 12)[0],
        "continuous_elbo": quad(lambda x: 0.5 * np.exp(x) * error(x), -12, 12)[0],
    }  # fmt: skip
    t = torch.arange(1, 4002)
    for name, exact in loops.items():
        factor = weight(PUBLISHED[name], t, schedule, parameterization="x0").numpy()
        # End points count fully in the sum, and the trapezoid's error is the square of the step, 0.006.
        assert (factor * error(lam)).sum() == pytest.approx(exact, rel=2e-3), name


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
