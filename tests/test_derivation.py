"""The derivation: its figures are recomputed here; that its page renders is `test_docs`."""

import re
from pathlib import Path

import pytest
from mpmath import mp, mpf

pytestmark = pytest.mark.any_torch

DOCS = Path(__file__).parents[1] / "docs"
SOURCE = (DOCS / "derivation.md").read_text(encoding="utf-8")


def test_the_weights_in_the_table_are_those_of_the_bound():
    """mpmath, from equations (2), (3), (12) and (15) of the page."""
    T = 1000
    with mp.workdps(40):
        beta = [mpf("1e-4") + (mpf("0.02") - mpf("1e-4")) * i / (T - 1) for i in range(T)]
        kept, snr = mpf(1), [mp.inf]
        for b in beta:
            kept *= 1 - b
            snr.append(kept / (1 - kept))
        weights = [1 / (2 * (1 - beta[0]))]
        weights += [(snr[t - 1] / snr[t] - 1) / 2 for t in range(2, T + 1)]
        mean = sum(weights) / T
        rows = re.findall(
            r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", SOURCE, re.MULTILINE
        )
        assert len(rows) == 6
        for t, *figures in rows:
            noise = weights[int(t) - 1]
            exact = [snr[int(t)], noise * snr[int(t)], noise, noise / mean]
            for shown, value in zip(figures, exact, strict=True):
                digits = len(shown.replace(".", "").lstrip("0"))
                assert float(shown) == pytest.approx(float(value), rel=0.6 * 10 ** (1 - digits))
        assert round(100 * sum(weights[:100]) / sum(weights)) == 42
    assert "carry 42 % of" in SOURCE
