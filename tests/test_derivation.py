"""The derivation page: rendered from its source, readable offline, with figures that are recomputed here."""

import hashlib
import re
from pathlib import Path

import pytest
from mpmath import mp, mpf

DOCS = Path(__file__).parents[1] / "docs"
SOURCE = (DOCS / "derivation.md").read_text(encoding="utf-8")
PAGE = (DOCS / "derivation.html").read_text(encoding="utf-8")


def test_the_page_is_rendered_from_this_source():
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert f'content="{digest}"' in PAGE, "docs/derivation.md has changed: run python docs/build.py"


def test_the_page_needs_neither_network_nor_script():
    assert "<script" not in PAGE
    assert not re.search(r'(src|href)\s*=\s*"(?!#)', PAGE)
    assert "url(" not in PAGE
    assert "@import" not in PAGE


def test_every_formula_is_mathml_and_every_equation_can_be_linked_to():
    text = re.sub(r"`[^`]*`", "", SOURCE)
    displayed = len(re.findall(r"\$\$.*?\$\$", text, flags=re.DOTALL))
    inline = text.replace("$$", "").count("$") // 2
    assert PAGE.count("<math") == displayed + inline
    numbers = list(map(int, re.findall(r"\\tag\{(\d+)\}", SOURCE)))
    assert numbers == list(range(1, len(numbers) + 1))
    assert re.findall(r'id="eq-(\d+)"', PAGE) == [str(n) for n in numbers]


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
