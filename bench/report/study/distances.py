"""What each distance says of each arm, between two marks: real images, and a Gaussian that has learned two moments only."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bench.record.statistics import Interval, mean_interval
from bench.record.study import Results, floor_of
from bench.report.page.blocks import Block, Cell, Table
from bench.report.page.digits import number, with_interval
from bench.report.study.figures import judged

_HEADER = ["samples", "FD", "quality", "FD∞", "KID"]


def distance_tables(results: Results) -> list[Block]:
    """One table for each feature map of the study; none in records that have no control."""
    rows: Mapping[str, Any] = results.get("distances", {})
    return [_table(results, name, about) for name, about in rows.items() if "control" in about]


def _table(results: Results, name: str, about: Mapping[str, Any]) -> Table:
    arms = [_arm_row(results, arm["name"], name, about) for arm in results["arms"]]
    floor = floor_of(about)
    real = ("–", "–") if floor is None else (number(floor), _share(floor, about))
    marks: list[list[str | Cell]] = [
        ["real images", *real, "–", "–"],
        ["Gaussian with their mean and covariance", number(about["control"]), _share(about["control"], about), "–", "–"],
        ["white noise", number(about["noise"]), _share(about["noise"], about), "–", "–"],
    ]  # fmt: skip
    return Table(_HEADER, [*arms, *marks], _caption(about))


def _caption(about: Mapping[str, Any]) -> str:
    verdict = (
        "It may decide."
        if about["may_be_primary"]
        else "**It decides nothing here**: for it a Gaussian is nearly as good as data."
    )
    return (
        f"{about['name']}, {about['samples']} samples. Quality: 0 is a real image, 1 the Gaussian, which has two moments right and nothing else. "
        f"FD∞: the limit for many samples by a line in 1/N; KID: torchmetrics' kernel distance. {verdict}"
    )


def _arm_row(results: Results, arm: str, name: str, about: Mapping[str, Any]) -> list[str | Cell]:
    found = [run["final"]["distances"][name] for run in judged(results, arm)]
    if not found:
        return [f"`{arm}`", *(Cell("–", "muted", "no run ended with samples") for _ in _HEADER[1:])]
    fd = mean_interval([one["fd"] for one in found])
    return [
        f"`{arm}`",
        with_interval(fd, alone="one seed"),
        with_interval(_quality(fd, about), alone="one seed"),
        _mean(one.get("fd_infinity") for one in found),
        _mean(one.get("kid") for one in found),
    ]


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number(math.fsum(known) / len(known)) if known else "–"


def _quality(fd: Interval, about: Mapping[str, Any]) -> Interval:
    """(FD − floor)/(control − floor): a change of unit, so the interval's ends change alike."""
    floor = floor_of(about) or 0.0
    span = about["control"] - floor
    low, high = (None if end is None else (end - floor) / span for end in (fd.low, fd.high))
    return Interval((fd.estimate - floor) / span, low, high, fd.level, fd.n, fd.method)


def _share(value: float, about: Mapping[str, Any]) -> str:
    floor = floor_of(about) or 0.0
    return number((value - floor) / (about["control"] - floor))
