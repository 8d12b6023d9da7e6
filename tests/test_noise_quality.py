"""The tests of the noise: right p-values, a pass for the stream, a failure for noise that is nearly right."""

import itertools

import numpy as np
import pytest
import torch

from bench.measure.noise import normality as noise_quality
from bench.measure.noise.normality import LEVEL, PIECE, anderson_darling_tail, examine, passed
from bench.record import new_record
from bench.report.noise import section

COUNT = 10 * PIECE  # ten million numbers


@pytest.mark.parametrize(
    # Upper percentage points of the limit of A² (Lewis 1961; Marsaglia & Marsaglia 2004 confirm four digits).
    ("statistic", "tail"),
    [(1.933, 0.10), (2.492, 0.05), (3.878, 0.01)],
)
def test_anderson_darling_percentage_points(statistic, tail):
    assert anderson_darling_tail(statistic) == pytest.approx(tail, abs=2e-4 + 0.002 * tail)


def test_anderson_darling_tail_falls_from_one():
    tails = [anderson_darling_tail(z) for z in (0.05, 0.2, 0.5, 1, 2, 4, 8, 16)]
    assert tails[0] == pytest.approx(1)
    assert all(a >= b for a, b in itertools.pairwise(tails))
    assert 0 <= tails[-1] < 1e-6


def test_ten_million_numbers_pass():
    findings = examine(COUNT, seed=1)
    worst = min(findings, key=lambda finding: finding.p_value)
    assert passed(findings), worst
    assert len(findings) > 40


def test_p_values_of_one_piece_are_probabilities():
    findings = examine(1, seed=2)
    assert all(0 <= finding.p_value <= 1 for finding in findings)


DEFECTS = {
    # Box–Muller with 24-bit uniforms and a radius cut at 4.5: only the tails differ.
    "short tails": lambda z: z.clamp(-4.5, 4.5),
    "a variance of 1.006": lambda z: z * 1.003,
    "a mean of 0.002": lambda z: z + 0.002,
    "rounded to 1/32": lambda z: (z * 32).round() / 32,
    "partners that share a sign": lambda z: torch.where(
        torch.arange(z.shape[1]) // 16 % 2 == 1, z.abs() * z.roll(16, 1).sign(), z
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_nearly_normal_noise_fails(name, monkeypatch):
    draw = noise_quality.fast_normal

    def defective(*arguments, **options):
        return DEFECTS[name](draw(*arguments, **options))

    monkeypatch.setattr(noise_quality, "fast_normal", defective)
    assert not passed(examine(4 * PIECE, seed=3))


def test_a_stream_that_ignores_the_step_fails(monkeypatch):
    draw = noise_quality.fast_normal

    def constant(stream, shape, *, step, first_index, use):
        return draw(stream, shape, step=0, first_index=first_index, use=use)

    monkeypatch.setattr(noise_quality, "fast_normal", constant)
    findings = examine(1, seed=3)
    failing = [finding.name for finding in findings if finding.p_value < LEVEL / len(findings)]
    assert failing == ["correlation of z, next step", "correlation of z^2, next step"]
    assert np.isfinite([finding.statistic for finding in findings]).all()


@pytest.mark.parametrize("good", [True, False])
def test_the_report_says_whether_the_noise_passed(good: bool) -> None:
    finding = {"name": "mean of z^1", "statistic": 0.5, "expected": "0", "p_value": 0.25}
    record = new_record(
        "noise",
        protocol={"count": 1_000_003},
        results={"passed": good, "findings": [finding], "providers": {}},
    )
    found = section([record])
    assert found is not None
    assert found.failed is not good
    assert "1,000,003" in found.headlines[0]
    assert section([]) is None
