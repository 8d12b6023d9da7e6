"""The study: yardsticks against closed forms, effects against hand-made results, runs that do not depend on processes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.measure.study.design import FACTORIAL, Arm, Design
from bench.measure.study.one_run import perform
from bench.measure.study.processes import chosen_rates, run_tasks, study_tasks, tuning_tasks
from bench.measure.study.record import Means, run_study
from bench.measure.study.stability import Series, stability
from bench.measure.study.store import Store
from bench.measure.study.task import Setting, Task
from bench.measure.study.yardsticks import (
    even_in_log_snr,
    even_in_t,
    make_probe,
    own_objective,
    x0_errors,
)
from bench.record import load as load_record
from bench.record import save
from bench.record.kinds import JUDGES
from bench.record.pictures import decode, encode, tiled
from bench.record.study import MEASURES, measure, steps_to_reach, value_of
from bench.report.study.chapter import section
from bench.report.study.effects import contrast, main_effects, output_effect
from bench.report.study.verdict import number, sentences
from ddpm_ref.oracle import GaussianOracle
from ddpm_ref.schedule import (
    cosine_schedule,
    linear_schedule,
    log_snr_schedule,
    rescale_to_zero_terminal_snr,
)

SCHEDULE = log_snr_schedule(101, 6.0, -6.0)
TINY = Design(
    seeds=(1, 2),
    rates=(1e-3, 1e-2),
    T=23,
    network_options={"base": 2, "multipliers": (1, 2), "attention": (1,)},
    variants={
        "article": {"network": "article", "network_options": {"hidden": 3}},
        "blind": {"network_options": {"time_input": False}},
    },
    steps=5,
    tuning_steps=2,
    batch_size=7,
    points=3,
    probe_images=11,
    final_images=13,
    bins=5,
    bound_images=17,
    bound_evaluations=400,
    samples=19,
    sampler_steps=3,
    grid=6,
)


class TestYardsticks:
    def oracle(self) -> tuple[GaussianOracle, torch.Tensor, torch.Tensor]:
        draws = torch.randn(3, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        covariance = draws @ draws.T / 9
        root = torch.linalg.cholesky(covariance)
        noise = torch.randn(
            4001, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64
        )
        return GaussianOracle(torch.zeros(3), covariance), noise @ root.T, covariance

    def test_the_best_denoiser_has_the_error_of_the_closed_form(self) -> None:
        oracle, data, covariance = self.oracle()
        steps = even_in_log_snr(SCHEDULE, 7)
        probe = make_probe(data, SCHEDULE, steps)
        spectrum = torch.linalg.eigvalsh(covariance)
        for error, log_snr in zip(
            probe.eps_errors(oracle.model(SCHEDULE, "eps"), "eps"), probe.log_snr, strict=True
        ):
            snr = math.exp(log_snr)
            exact = float((snr * spectrum / (1 + snr * spectrum)).mean())
            # 3·4001 squares: a relative standard error of at most √(2/4001)
            assert error == pytest.approx(exact, rel=4 * math.sqrt(2 / 4001))

    @pytest.mark.parametrize("output", ["x0", "v", "score", "mean"])
    def test_every_parameterization_is_judged_alike(self, output: str) -> None:
        oracle, data, _ = self.oracle()
        probe = make_probe(data[:97], SCHEDULE, even_in_log_snr(SCHEDULE, 7))
        expected = probe.eps_errors(oracle.model(SCHEDULE, "eps"), "eps")
        actual = probe.eps_errors(oracle.model(SCHEDULE, output), output)
        assert actual == pytest.approx(expected, rel=1e-9)

    def test_x0_errors_are_measured_and_not_only_converted(self) -> None:
        oracle, data, _ = self.oracle()
        probe = make_probe(data[:97], SCHEDULE, [17])
        predicted = oracle.model(SCHEDULE, "x0")(probe.x_t[0], torch.full((97,), 17))
        exact = float((predicted - data[:97]).square().mean())
        errors = probe.eps_errors(oracle.model(SCHEDULE, "eps"), "eps")
        assert x0_errors(errors, SCHEDULE, [17])[0] == pytest.approx(exact, rel=1e-9)

    def test_bins_are_even_in_log_snr_whatever_the_schedule(self) -> None:
        schedule = linear_schedule(1000)
        table = schedule.log_snr[1:]
        first, last = float(table[0]), float(table[-1])
        for k, t in enumerate(even_in_log_snr(schedule, 9)):
            middle = first + (last - first) * (k + 0.5) / 9
            # the nearest step is at most half the schedule's widest gap away
            assert abs(float(schedule.log_snr[t]) - middle) <= float(-table.diff().min()) / 2

    def test_ranges_that_cannot_be_divided_are_refused(self) -> None:
        with pytest.raises(ValueError, match="finite range"):
            even_in_log_snr(rescale_to_zero_terminal_snr(cosine_schedule(50)), 5)
        with pytest.raises(ValueError, match="raise T or lower bins"):
            even_in_log_snr(log_snr_schedule(3, 1.0, -1.0), 5)

    def test_levels_even_in_t(self) -> None:
        assert even_in_t(SCHEDULE, 1000) == list(range(1, 102))
        assert even_in_t(log_snr_schedule(10), 5) == [2, 4, 6, 8, 10]

    def test_the_own_objective_weighs_by_log_snr(self) -> None:
        probe = make_probe(torch.zeros(2, 3), SCHEDULE, [26, 51])
        snr = [math.exp(level) for level in probe.log_snr]
        assert own_objective([0.2, 0.6], probe, "simple") == pytest.approx(0.4)
        expected = (0.2 / snr[0] + 0.6 / snr[1]) / (1 / snr[0] + 1 / snr[1])
        assert own_objective([0.2, 0.6], probe, "simple_x0") == pytest.approx(expected)


class FakeStep:
    def __init__(self, step: int, loss: float, norm: float, clipped: bool = False) -> None:
        self.step, self.loss, self.gradient_norm, self.clipped = step, loss, norm, clipped


class TestStability:
    def series(self, scale: float) -> Series:
        series = Series()
        for k in range(40):
            series.add(
                FakeStep(k + 1, scale * (2 + (-1) ** k), scale * math.exp((-1) ** k), k == 39)
            )
        return series

    def test_closed_forms(self) -> None:
        found = stability(self.series(1.0))
        spread = math.sqrt(20 / 19)  # ±1 around the mean, 20 values, n − 1
        assert found["loss_noise"] == pytest.approx(spread / 2)
        assert found["gradient_spread"] == pytest.approx(spread)
        assert found["worst_spike"] == pytest.approx(math.e / math.cosh(1))
        assert found["clipped"] == pytest.approx(1 / 20)

    def test_the_scale_of_the_loss_has_no_influence(self) -> None:
        assert stability(self.series(1e-3)) == pytest.approx(stability(self.series(1e4)))

    def test_a_diverged_last_step_is_left_out(self) -> None:
        series = self.series(1.0)
        series.add(FakeStep(41, math.nan, math.inf))
        assert stability(series) == stability(self.series(1.0))

    def test_the_curve_covers_every_step_once(self) -> None:
        curve = self.series(1.0).curve(7)
        assert curve["steps"][0] == pytest.approx((1 + 5) / 2)
        assert len(curve["loss"]) == 7
        assert self.series(1.0).curve(100)["steps"] == list(range(1, 41))


class TestPictures:
    @pytest.mark.parametrize("shape", [(5, 1, 3, 2), (7, 3, 2, 5)])
    def test_round_trip(self, shape: tuple[int, ...]) -> None:
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        packed = json.loads(json.dumps(encode(images)))
        assert np.array_equal(decode(packed), images.numpy())

    def test_a_sheet_holds_every_picture_at_its_place(self) -> None:
        images = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(3, 2).repeat(2, 3) + 1
        sheet = tiled(images, columns=3)
        assert sheet.shape == (2 * 4 + 1, 3 * 3 + 1)
        corners = [sheet[1, 1], sheet[1, 4], sheet[1, 7], sheet[5, 1], sheet[5, 4], sheet[5, 7]]
        assert corners == [1, 2, 3, 4, 5, 0]

    def test_a_damaged_picture_is_refused(self) -> None:
        packed = encode(torch.zeros(2, 1, 3, 3, dtype=torch.uint8))
        with pytest.raises(ValueError, match="damaged"):
            decode({**packed, "shape": [2, 1, 3, 4]})


def hand_made(values: dict[str, list[float]]) -> dict[str, Any]:
    """Results in which each arm's figures are `value` for every measure, seed by seed."""
    runs = [
        {
            "arm": arm,
            "seed": seed,
            "diverged_at": None,
            "stability": {"loss_noise": v, "gradient_spread": v, "clipped": 0.0},
            "points": {"steps": [10, 20], "eps_mse": [v, v], "x0_mse": [v, v]},
            "final": {"eps_mse": v, "x0_mse": v, "fd": v, "bound": {"bits_per_dim": v}},
            "training_seconds": 1.0,
            "reason": "",
        }
        for arm, column in values.items()
        for seed, v in enumerate(column, start=1)
    ]
    arms = []
    for name in values:
        output, weighting = name.split(" ")[0].split("/")
        network = name.partition("(")[2].rstrip(")") or "unet"
        arms.append({"name": name, "output": output, "weighting": weighting, "network": network})
    linear = {"along": [1e9], "final": [1e9]}
    return {"arms": arms, "runs": runs, "linear": linear, "log_snr": [0.0]}


FOUR = {
    "eps/simple": [1.0, 2.0, 4.0],
    "eps/simple_x0": [3.0, 6.0, 12.0],
    "x0/simple": [2.0, 4.0, 8.0],
    "x0/simple_x0": [6.0, 12.0, 24.0],
}


class TestEffects:
    def test_ratios_are_taken_within_seeds(self) -> None:
        interval = output_effect(hand_made(FOUR), measure("fd"), "simple").interval
        assert interval is not None
        assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))

    def test_differences_have_the_interval_of_student(self) -> None:
        effect = output_effect(hand_made(FOUR), measure("bits_per_dim"), "simple")
        differences = np.array([-1.0, -2.0, -4.0])
        half = 4.302652729911275 * differences.std(ddof=1) / math.sqrt(3)  # t, 2 degrees of freedom
        assert effect.interval is not None
        assert effect.interval.estimate == pytest.approx(-7 / 3)
        assert effect.interval.low == pytest.approx(-7 / 3 - half, rel=1e-9)
        assert effect.direction == "within noise"

    def test_the_factorial_separates_output_from_weighting(self) -> None:
        output, weighting, interaction = main_effects(hand_made(FOUR), measure("fd"))
        found = [effect.interval.estimate for effect in (output, weighting, interaction)]  # type: ignore[union-attr]
        assert found == pytest.approx([1 / 2, 1 / 3, 1.0])
        assert output.direction == "better"

    def test_an_interaction_is_seen(self) -> None:
        values = {**FOUR, "x0/simple_x0": [60.0, 120.0, 240.0]}
        interaction = main_effects(hand_made(values), measure("fd"))[2]
        assert interaction.interval is not None
        assert interaction.interval.estimate == pytest.approx(10.0)

    def test_a_diverged_run_leaves_its_pair_out_and_says_so(self) -> None:
        results = hand_made(FOUR)
        results["runs"][1]["diverged_at"] = 7
        effect = output_effect(results, measure("fd"), "simple")
        assert effect.interval is not None
        assert effect.interval.n == 2
        assert effect.reason == "eps/simple: 1 of 3 seeds without a value"

    def test_an_arm_without_any_value_has_no_effect(self) -> None:
        results = hand_made(FOUR)
        for run in results["runs"][:3]:
            run["final"] = None
        effect = output_effect(results, measure("fd"), "simple")
        assert (effect.interval, effect.direction) == (None, "unknown")

    def test_one_seed_decides_nothing(self) -> None:
        values = {arm: column[:1] for arm, column in FOUR.items()}
        assert output_effect(hand_made(values), measure("fd"), "simple").direction == "unknown"

    def test_the_step_at_which_a_power_law_passes(self) -> None:
        steps = [10, 40, 160, 640]
        errors = [8.0 / step for step in steps]
        assert steps_to_reach(steps, errors, 8.0 / 100) == pytest.approx(100)

    @pytest.mark.parametrize(
        ("errors", "expected"),
        [([1, 1, 1], None), ([0.1, 0.1, 0.1], 10), ([0.1, 1, 0.1], 40.0), ([0.1, 0.1, 1], None)],
    )
    def test_passing_is_for_good(self, errors: list[float], expected: float | None) -> None:
        found = steps_to_reach([10, 20, 80], errors, 0.1**0.5)
        assert found == (expected if expected is None else pytest.approx(expected))

    def test_every_measure_is_read_from_a_run(self) -> None:
        results = hand_made(FOUR)
        run = results["runs"][0]
        values = {entry.key: value_of(results, run, entry) for entry in MEASURES}
        assert values.pop("steps_to_linear") == values.pop("steps_to_linear_x0") == 10
        assert set(values.values()) == {1.0}

    def test_any_contrast(self) -> None:
        effect = contrast(hand_made(FOUR), measure("fd"), {"eps/simple": 1.0, "x0/simple_x0": -1.0})
        assert effect.interval is not None
        assert effect.interval.estimate == pytest.approx(1 / 6)


class TestVerdict:
    def test_each_claim_of_the_article_has_its_sentence(self) -> None:
        text = " ".join(sentences(hand_made(FOUR)))
        for words in (
            "Easier to learn?",
            "Faster to converge?",
            "Stabler?",
            "Output or weighting?",
        ):
            assert words in text

    def test_noise_is_called_noise(self) -> None:
        noisy = {arm: [1.0, 2.0, 1.5][k:] + [1.0, 2.0, 1.5][:k] for k, arm in enumerate(FOUR)}
        assert "under `simple` within noise, " in sentences(hand_made(noisy))[2]

    def test_directions_that_differ_are_both_named(self) -> None:
        values = {**FOUR, "x0/simple_x0": [0.1, 0.2, 0.4]}
        stabler = next(s for s in sentences(hand_made(values)) if "Stabler?" in s)
        assert "under `simple` better, ×0.500 [0.500, 0.500]" in stabler
        assert "under `simple_x0` worse, ×30.0 [30.0, 30.0]" in stabler

    def test_the_best_arm_and_the_next(self) -> None:
        line = sentences(hand_made(FOUR))[1]
        assert "Fréchet distance: `eps/simple` with 2.00, before `x0/simple` with 4.00" in line
        assert "(the difference is beyond noise)" in line

    def test_a_threshold_that_one_side_never_reached(self) -> None:
        results = hand_made(FOUR)
        results["linear"]["along"] = [1.5]
        line = next(s for s in sentences(results) if "Faster" in s)
        assert "under `simple` no ratio (ε got there on 1 of 3 seeds, x₀ on 0)" in line

    def test_an_interaction_that_changes_sign_is_read(self) -> None:
        reading = (
            "Neither as such: each output wins under the weighting that is plain in its own space"
        )
        low, high = [10.0, 11.0, 12.0], [20.0, 21.5, 22.0]
        crossed = dict(zip(FOUR, (low, high, high, low), strict=True))
        assert reading in sentences(hand_made(crossed))[0]
        noise_wins = {name: low if name.startswith("eps") else high for name in FOUR}
        assert "The noise: it is better under both" in sentences(hand_made(noise_wins))[0]
        image_wins = {name: high if name.startswith("eps") else low for name in FOUR}
        assert "The image: it is better under both" in sentences(hand_made(image_wins))[0]
        assert "It depends" in sentences(hand_made(FOUR))[0]
        equal = {name: [1.0, 2.0, 4.0] for name in FOUR}
        assert "within noise under both" in sentences(hand_made(equal))[0]

    def test_divergence_is_a_result_and_a_broken_run_a_failure(self) -> None:
        results = hand_made(FOUR)
        results["runs"][0].update(diverged_at=812, final=None)
        assert any(
            "`eps/simple` diverged on 1 of 3 seeds (steps 812)" in s for s in sentences(results)
        )
        assert not list(JUDGES["study"](results))
        results["runs"][1] = {"arm": "eps/simple", "seed": 2, "failed": "RuntimeError: no"}
        assert list(JUDGES["study"](results))
        assert any("RuntimeError: no" in sentence for sentence in sentences(results))

    def test_the_price_of_the_time_input(self) -> None:
        values = {**FOUR, "eps/simple (blind)": [1.5, 3.0, 6.0]}
        line = next(s for s in sentences(hand_made(values)) if "time input" in s)
        assert "the same network with t held constant ×1.50 [1.50, 1.50] (worse)" in line

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.123456, "0.123"),
            (-12.3456, "−12.3"),
            (1234.5, "1,234"),
            (100.0, "100"),
            (0.5, "0.500"),
        ],
    )
    def test_three_digits(self, value: float, text: str) -> None:
        assert number(value) == text


def comparable(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in run.items() if k not in ("training_seconds", "worker")} for run in results
    ]


class TestRuns:
    def test_processes_have_no_influence(self) -> None:
        setting = Setting(replace(TINY, arms=FACTORIAL[:1]), "digits")
        tasks = [Task("run", FACTORIAL[0], seed, 1e-3) for seed in (1, 2)]
        here = run_tasks(setting, tasks, workers=1, label="here")
        spread = run_tasks(setting, tasks, workers=2, label="spread")
        assert comparable(here) == comparable(spread)
        assert here[0]["final"] != here[1]["final"]

    def test_arms_of_one_seed_are_paired(self) -> None:
        """The last layer starts at 0, so that the first loss of an ε-arm is the mean square of its noise."""
        design = replace(TINY, steps=1)
        arms = (
            Arm("eps", "simple"),
            Arm("eps", "simple", "article"),
            Arm("eps", "simple", "blind"),
        )
        losses = [
            perform(Setting(design, "digits"), Task("run", arm, 1, 1e-3))["curve"]["loss"][0]
            for arm in arms
        ]
        other = perform(Setting(design, "digits"), Task("run", arms[0], 2, 1e-3))["curve"]["loss"][
            0
        ]
        assert losses[0] == losses[1] == losses[2]
        assert losses[0] == pytest.approx(1.0, abs=4 * math.sqrt(2 / (7 * 64)))
        assert other != losses[0]

    def test_divergence_is_a_result(self) -> None:
        result = perform(Setting(TINY, "digits"), Task("run", FACTORIAL[0], 1, 1e30))
        assert result["diverged_at"] is not None
        assert (result["final"], result["reason"][:8]) == (None, "diverged")
        json.dumps(result, allow_nan=False)

    def test_a_task_that_raises_is_a_row_with_its_reason(self) -> None:
        setting = Setting(TINY, "digits", provider="none such")
        (result,) = run_tasks(setting, [Task("run", FACTORIAL[0], 1, 1e-3)], workers=1, label="x")
        assert "none such" in result["failed"]

    def test_a_run_that_is_asked_to_stop_stops(self) -> None:
        result = perform(Setting(TINY, "digits"), Task("run", FACTORIAL[0], 1, 1e-3), lambda: True)
        assert result["stopped"] is True

    def test_rates_are_chosen_by_the_own_objective(self) -> None:
        setting = Setting(TINY, "digits")
        tuned = [
            {"arm": task.arm.name, "rate": task.rate, "objective": abs(math.log(task.rate / 9e-3))}
            for task in tuning_tasks(setting)
        ]
        tuned[1]["objective"] = None  # eps/simple diverged at 1e-2
        rates = chosen_rates(setting, tuned)
        assert rates[FACTORIAL[0]] == 1e-3
        assert set(list(rates.values())[1:]) == {1e-2}
        assert {task.seed for task in tuning_tasks(setting)} == {TINY.tuning_seed}
        assert TINY.tuning_seed not in {task.seed for task in study_tasks(setting, rates)}


class TestRecord:
    def test_from_data_to_section(self, tmp_path: Path) -> None:
        kept: list[dict[str, Any]] = []
        record = run_study(
            Setting(TINY, "digits"),
            command="ddpm-bench run",
            means=Means(workers=1, store=Store(tmp_path / "runs"), finished=kept.append),
        )
        assert len(kept) == len(list((tmp_path / "runs").glob("run-*.json"))) == 2 * len(TINY.arms)
        found = section([load_record(save(record, tmp_path))])
        assert found is not None
        assert not found.failed
        assert len(found.headlines) >= 5
        assert "eps/simple bits_per_dim" in record.samples
        assert record.samples["eps/simple bits_per_dim"]["pairs"] == [1, 2]
        self.draws(found)

    def draws(self, found: Any) -> None:
        from bench.report.page.blocks import Figure
        from bench.report.page.figures import svg

        figures = [block for block in found.blocks if isinstance(block, Figure)]
        assert len(figures) == 10
        assert all(svg(figure) == svg(figure) for figure in figures)

    def test_no_study_no_section(self) -> None:
        assert section([]) is None
