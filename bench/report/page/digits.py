"""One rule for the digits of every number that a report shows.

A number with an interval is rounded where its uncertainty has its second digit:

    place = 10^(⌊log₁₀ h⌋ − 1),   h = (high − low) / 2

so that −0.39312 [−0.4061, −0.3805] is written −0.393 [−0.406, −0.381], and 11,031 [9,166, 13,359] is written
11,000 [9,200, 13,400]. More digits would claim what was not measured. A number without an interval has three digits, or all of a
whole number that has more, for it may be a count.
"""

import math

from bench.record.statistics import Interval

_SIGNIFICANT = 3
"""Digits of a number of which no uncertainty is known."""


def number(value: float) -> str:
    """Three significant digits, a real minus sign, no exponent for everyday sizes: `0.312`, `−5.30`, `1,230`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("-", "−").replace("inf", "∞")
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{_SIGNIFICANT - 1}e}".replace("-", "−")
    return _at_place(value, min(0, _exponent(value) - _SIGNIFICANT + 1))


def _at_place(value: float, exponent: int) -> str:
    """`value` rounded to a multiple of 10^exponent: no decimals for 0 and above."""
    rounded = round(value, -exponent)
    return f"{rounded:,.{max(0, -exponent)}f}".replace("-", "−")


def interval(estimate: float, low: float | None, high: float | None) -> tuple[str, str]:
    """Estimate and `low, high`, all three rounded at the second digit of half the interval's width.

    Returns:
        The estimate, and the ends without brackets; "" for the ends where there are none.
    """
    if low is None or high is None:
        return number(estimate), ""
    half = (high - low) / 2
    if not math.isfinite(half) or half <= 0:
        return number(estimate), f"{number(low)}, {number(high)}"
    place = _exponent(half, 2) - 1
    # An interval far narrower than its estimate still shows the estimate in full: those digits were measured.
    if not -9 <= place <= 9:
        return number(estimate), f"{number(low)}, {number(high)}"
    return _at_place(estimate, place), f"{_at_place(low, place)}, {_at_place(high, place)}"


def with_interval(found: Interval | None, sign: str = "", alone: str = "one value") -> str:
    """`−0.393 [−0.406, −0.381]`, with `sign` (×, +) before it; `alone` says why there is no interval.

    A dash for None.
    """
    if found is None:
        return "–"
    estimate, ends = interval(found.estimate, found.low, found.high)
    return f"{sign}{estimate} [{ends}]" if ends else f"{sign}{estimate} ({alone})"


def _exponent(value: float, significant: int = _SIGNIFICANT) -> int:
    """The power of ten of the first digit after rounding to so many digits: 9.996 counts as 10."""
    return int(f"{abs(value):.{significant - 1}e}".partition("e")[2])
