"""The study of the bound: its figures follow from formulas that the code does not use, and its record makes a section."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from bench.measure.bound import exact, prices
from bench.measure.bound.grid import Cell, cells, monte_carlo_grid, z_score
from bench.measure.estimator.coverage import OTHERS, Pool, draws_at, simulate
from bench.record import new_record
from bench.report.bound import section
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.schedule import linear_schedule, sigmoid_schedule


def test_the_gap_of_the_posterior_variance_tends_to_half_eulers_constant() -> None:
    # Derived in bench.measure.bound.exact; the sigmoid schedule is fast to converge: O(ln T/T).
    unit = exact.unit_gaussian()
    found = [exact.gaps_by_variance(unit, sigmoid_schedule(T))["posterior"] for T in (500, 2000)]
    limit = math.fsum(0.5 * (1 / k - math.log1p(1 / k)) for k in range(1, 200_000)) + 0.25 / 200_000
    assert limit == pytest.approx(exact.EULER / 2, abs=1e-9)
    assert abs(found[1] - limit) < 0.35 * abs(found[0] - limit)
    assert found[1] == pytest.approx(limit, abs=0.01)


def test_with_fixed_ends_the_gap_falls_like_one_over_t() -> None:
    oracle = exact.unit_gaussian()
    coarse, fine = (
        exact.gaps_by_variance(oracle, exact.fixed_ends(T))["posterior"] for T in (400, 1600)
    )
    assert coarse / fine == pytest.approx(4, rel=0.15)


def test_the_best_variance_is_never_worse_and_beta_is_best_for_unit_gaussians() -> None:
    schedule = linear_schedule(29)
    found = exact.gaps_by_variance(exact.unit_gaussian(), schedule)
    assert abs(found["beta"]) < 1e-12
    assert abs(found["optimal"]) < 1e-12
    mixture = exact.gaps_by_variance(exact.line_mixture(), schedule)
    assert -1e-10 < mixture["optimal"] < min(mixture["posterior"], mixture["beta"])


def test_interiors_matter_less_the_more_steps() -> None:
    spreads = [row["spread"] for row in exact.interior_spread((100, 400))]
    assert spreads[1] < 0.3 * spreads[0]


def test_pointwise_slack_is_not_negative() -> None:
    rows = exact.pointwise_slack((1, 7), points=20)
    assert len(rows) == 2 * 2 * len(exact.SCHEDULES)
    assert all(-1e-10 < row["least"] <= row["median"] <= row["largest"] for row in rows)


def test_the_pictured_integrand_is_the_one_that_was_integrated() -> None:
    for row in exact.i_mmse():
        dims = {"field": 64, "mixture": 1}[row["data"]]
        area = torch.trapezoid(
            torch.tensor(row["integrand"], dtype=torch.float64),
            torch.tensor(row["log_snr"], dtype=torch.float64),
        )
        entropy = 0.5 * dims * (math.log(2 * math.pi * math.e) - area.item())
        # A step four times as long: the rule's error is still exponentially small for these integrands.
        assert entropy == pytest.approx(row["exact"], abs=1e-3 * dims)


def test_prices_are_those_of_the_expected_bound() -> None:
    from ddpm_ref.oracle.expected import optimal_variance

    oracle = GaussianOracle(torch.zeros(3), torch.diag(torch.tensor([0.2, 1.0, 3.0])))
    schedule = linear_schedule(13)
    found = prices.prices(prices.gaussian_errors(oracle, schedule), schedule)
    best = optimal_variance(oracle.mmse(schedule.log_snr[1:]), 3, schedule)
    tables = {
        "beta": "beta",
        "posterior": "posterior",
        "isotropic": best,
        "identity": torch.ones(14),
    }
    for name, table in tables.items():
        terms = oracle.expected_elbo(schedule, table).diffusion.sum().item()
        assert found[name] == pytest.approx(terms / (3 * math.log(2)), rel=1e-9)
    assert found["diagonal"] <= found["isotropic"] <= min(found["beta"], found["posterior"])


def test_measured_errors_estimate_the_exact_ones() -> None:
    oracle = GaussianOracle(torch.zeros(2), torch.diag(torch.tensor([0.5, 2.0])))
    schedule = linear_schedule(5)
    images = exact.NoiseStream(3).normal((2000, 2), step=9, dtype=torch.float64)
    images = images * torch.tensor([0.5, 2.0]).sqrt()
    found = prices.measured_errors(oracle.model(schedule, "eps"), images, schedule, "eps")
    # 2000 squares of Gaussians: relative standard error √(2/2000) = 3.2 %.
    torch.testing.assert_close(found, prices.gaussian_errors(oracle, schedule), rtol=0.13, atol=0)


def test_respaced_keeps_the_last_step() -> None:
    for T in (1, 7, 99, 100):
        schedule = prices.respaced(linear_schedule(100), T)
        assert (schedule.T, schedule.timesteps[-1].item()) == (T, 100)


def test_the_grid_has_every_cell_and_detects_a_wrong_bound(monkeypatch) -> None:
    assert len(cells((1, 3), (1, 2))) == 2 * (5 * 2 - 1) * 2
    small = monte_carlo_grid(sizes=(2,), steps=(2,), samples=400)
    assert small["largest"] < 4.5
    monkeypatch.setattr(
        GaussianOracle, "expected_elbo", _off_by_a_tenth(GaussianOracle.expected_elbo)
    )
    assert abs(z_score(Cell(2, "cosine", 2, "posterior"), 400, 0)) > 6


def _off_by_a_tenth(method):
    from dataclasses import replace

    def wrong(self, *arguments, **options):
        terms = method(self, *arguments, **options)
        return replace(terms, reconstruction=terms.reconstruction + 1.0)

    return wrong


def pool(T: int = 20, size: int = 11) -> Pool:
    generator = torch.Generator().manual_seed(0)
    terms = [
        torch.rand(draws_at(t, T, 96), size, generator=generator, dtype=torch.float64) * 30 / t**2
        for t in range(1, T + 1)
    ]
    return Pool(terms, prior=0.25, evaluations=sum(v.numel() for v in terms))


@pytest.mark.parametrize("way", OTHERS)
def test_the_other_ways_are_unbiased_and_err_as_their_formula_says(way) -> None:
    filled, n, runs = pool(), 60, 600
    errors = simulate(filled, way, n, runs)
    assert abs(errors.mean().item()) < 4 * errors.std().item() / math.sqrt(runs)
    moments = torch.stack([v.square().mean() for v in filled.terms])
    theta = filled.reference - filled.prior
    if way == "uniform t":
        variance = (20 * moments.sum().item() - theta**2) / n
    elif way == "importance-sampled t":
        root = moments.sqrt()
        q = 0.999 * root / root.sum() + 0.001 / 20
        variance = ((moments / q).sum().item() - theta**2) / n
    else:
        return_of_means = torch.stack([v.mean(dim=0) for v in filled.terms]).sum(dim=0)
        between = return_of_means.var().item()
        within = sum(v.var(dim=0, correction=0).mean().item() for v in filled.terms)
        variance = ((1 - 3 / 11) * between + within) / 3
    # 600 squares: relative standard error about 6 %.
    assert errors.square().mean().item() == pytest.approx(variance, rel=0.25)


def estimator_results() -> dict:
    interval = {"estimate": 3.0, "low": 2.7, "high": 3.4, "level": 0.95, "n": 9, "method": "x"}
    return {
        "reference": 4.0,
        "reference_stderr": 1e-3,
        "reference_evaluations": 10,
        "rmse": 0.01,
        "mean_stderr": 0.01,
        "largest_spent": 99,
        "coverage": interval | {"estimate": 0.95, "low": 0.92, "high": 0.97, "n": 400},
        "evaluation_ratios": dict.fromkeys(OTHERS, interval),
    }


def test_several_estimates_are_summed_up_by_their_range_and_the_least_interval() -> None:
    records = []
    for subject, evaluations, factor in (("v", 84, 9.0), ("eps", 28, 2.0), ("eps", 84, 4.0)):
        results = estimator_results()
        results["coverage"]["estimate"] = 0.9 + evaluations / 2100
        results["evaluation_ratios"] = {
            way: results["coverage"]
            | {"estimate": factor, "low": factor - 0.5, "high": factor + 0.5}
            for way in OTHERS
        }
        protocol = {"subject": subject, "evaluations": evaluations, "images": 7, "T": 10}
        samples = {name: {"values": [0.1, -0.2]} for name in (*OTHERS, "estimate_elbo")}
        records.append(
            new_record(
                "estimator",
                protocol=protocol | {"bound": "words"},
                samples=samples,
                results=results,
            )
        )
    # The same network, images and budget, measured before: nothing of it is left.
    old = copy.deepcopy(records[0].results)
    old["coverage"]["estimate"] = 0.1
    found = section([*records, replace(records[0], created="2020-01-01T00:00:00Z", results=old)])
    assert found is not None
    (headline,) = found.headlines
    assert "4 to 12 evaluations an image" in headline
    assert headline.count("2 × [1.5, 2.5] to 9 × fewer") == 3
    assert "covered 91.3 to 94.0 % of 400" in headline
    (table,) = (block for block in found.blocks if hasattr(block, "rows"))
    assert [row[:3] for row in table.rows] == [
        ["eps, T = 10", "7 digits", "28 (4)"],
        ["eps, T = 10", "7 digits", "84 (12)"],
        ["v, T = 10", "7 digits", "84 (12)"],
    ]
    elsewhere = replace(records[0], data={"name": "fashion-mnist"})
    both = section([*records, elsewhere])
    assert both is not None
    first, second = both.headlines
    assert first.replace(" of digits", "") == headline.replace(" of digits", "")
    assert second.startswith("Bits/dim of fashion-mnist on a budget of 12 evaluations an image")


def test_records_make_a_section_with_strict_json() -> None:
    from bench.measure.bound import record as module
    from bench.report.page.figures import svg

    grid = {"samples": 9, "cells": [], "largest": 2.0, "ks_p_value": 0.4}
    row = dict.fromkeys(("identity", "beta", "posterior", "isotropic", "diagonal"), 1.0) | {"T": 10}
    bound = module.bound_record(
        steps=(10, 30), grid=grid, model={"rows": [row], "images": 7, "T": 10}
    )
    samples = {name: {"values": [0.1, -0.2]} for name in (*OTHERS, "estimate_elbo")}
    protocol = {"subject": "eps", "evaluations": 99, "images": 7, "T": 10, "bound": "words"}
    estimator = new_record(
        "estimator", protocol=protocol, samples=samples, results=estimator_results()
    )
    found = section([estimator, bound])
    assert found is not None
    assert not found.failed
    for row in bound.results["i_mmse"]:
        assert row["by_integral"] == pytest.approx(row["exact"], abs=1e-6)
    assert "2.7" in " ".join(found.headlines)
    json.dumps(found.data, allow_nan=False)
    for block in found.blocks:
        if hasattr(block, "draw"):
            assert svg(block).startswith("<svg")
    assert section([]) is None
    broken = json.loads(json.dumps(bound.results))
    broken["pointwise_least_slack"] = -1.0
    failing = section([new_record("bound", protocol={}, results=broken)])
    assert failing is not None
    assert failing.failed
