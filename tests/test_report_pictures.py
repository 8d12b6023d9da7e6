"""Pictures show what the records hold: read off the axes, not off the file."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas

from bench.record import Record, load, new_record, series
from bench.record.study import completed, measure, value_of
from bench.report import history
from bench.report.coverage import coverage_figure
from bench.report.laws.heat import heat_figure
from bench.report.page.blocks import Figure
from bench.report.study.effects import output_effect
from bench.report.study.front import forest_figure, front, p_value
from bench.report.study.pictures import IN_IMAGE_SPACE, interaction_figure, weights_figure
from bench.report.timings import rounds_figure

pytestmark = pytest.mark.any_torch

RECORDS = Path(__file__).parents[1] / "reports" / "records"


def drawn(figure: Figure | None) -> Canvas:
    assert figure is not None
    canvas = Canvas(figsize=figure.size)
    figure.draw(canvas)
    return canvas


@pytest.fixture(scope="module")
def study() -> Record:
    """The committed one of images."""
    (found,) = [r for r in map(load, RECORDS.glob("*-study-*.json")) if r.data["name"] == "digits"]
    return found


def test_the_interaction_shows_every_seed_of_every_corner(study: Record) -> None:
    bits, _ = drawn(interaction_figure(study.results)).axes
    shown = sorted(round(float(y), 9) for line in bits.lines for y in line.get_ydata())
    entry = measure("bits_per_dim")
    for arm in ("eps/simple", "x0/simple", "eps/simple_x0", "x0/simple_x0"):
        for run in completed(study.results, arm):
            assert round(float(value_of(study.results, run, entry)), 9) in shown


def test_the_forest_is_filled_exactly_where_holm_says(study: Record) -> None:
    canvas = drawn(forest_figure(study.results))
    marks = [line for axes in canvas.axes for line in axes.lines if line.get_marker() == "o"]
    filled = [line for line in marks if line.get_markerfacecolor() != "none"]
    caption = forest_figure(study.results).caption
    assert f"the {len(filled)} of {len(marks)} effects" in caption


def test_p_read_off_an_interval_is_that_of_the_t_test(study: Record) -> None:
    from scipy import stats

    entry = measure("bits_per_dim")
    values = [
        [value_of(study.results, run, entry) for run in completed(study.results, f"{o}/simple")]
        for o in ("eps", "x0")
    ]
    exact = stats.ttest_rel(*values).pvalue
    assert p_value(output_effect(study.results, entry, "simple")) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("name", sorted(IN_IMAGE_SPACE))
def test_weights_are_those_of_the_reference(name: str) -> None:
    """The factor on the error of x₀ at each step of a schedule, as `ddpm_ref.weight` gives it."""
    import torch

    from ddpm_ref import linear_schedule, weight

    schedule = linear_schedule(50)
    t = torch.arange(1, 51)
    exact = weight(name, t, schedule, parameterization="x0")
    mine = [IN_IMAGE_SPACE[name](math.exp(s)) for s in schedule.log_snr[1:].tolist()]
    assert mine == pytest.approx(exact.tolist(), rel=1e-9)


def test_weights_of_one_weighting_are_no_picture(study: Record) -> None:
    arms = [arm for arm in study.results["arms"] if arm["weighting"] == "simple"]
    assert weights_figure({**study.results, "arms": arms}) is None
    assert len(drawn(weights_figure(study.results)).axes[0].lines) == 3


def law(
    status: str, error: float | None, law: str = "I1", dtype: str = "float64"
) -> dict[str, object]:
    return {
        "implementation": "lib",
        "law": law,
        "dtype": dtype,
        "status": status,
        "classification": "bug" if status == "fail" else None,
        "error": error,
        "tolerance": 1e-3,
    }


def test_the_heat_map_is_blue_where_laws_hold_and_red_where_they_fail() -> None:
    rows = [
        law("pass", 1e-5),
        law("fail", 1.0, dtype="float32"),
        law("fail", None, "I2"),
        law("pass", 0.0, "I3"),
        law("fail", 5e-4, "I4"),
        law("not-offered", None, "I5"),
    ]
    canvas = drawn(heat_figure([{"name": "lib"}], rows))
    grid = np.array(canvas.axes[0].images[0].get_array(), dtype=float)
    assert [text.get_text() for text in canvas.axes[0].get_yticklabels()] == [
        "I1",
        "I2",
        "I3",
        "I4",
    ]
    assert grid[0].tolist() == pytest.approx([-2.0, 3.0])
    assert grid[1, 0] == 4.0
    assert grid[2, 0] == -4.0
    assert grid[3, 0] > 0, "a failure is never on the side of what holds"
    assert math.isnan(grid[1, 1])


def test_options_are_on_the_heat_map() -> None:
    every = [load(path) for path in RECORDS.glob("*-verify-*.json")]
    record = max(every, key=lambda one: len(one.results["implementations"]))
    described = record.results["implementations"]
    canvas = drawn(heat_figure(described, record.results["laws"]))
    labels = " ".join(text.get_text() for text in canvas.axes[0].get_xticklabels())
    assert sum(":" in one["name"] for one in described) > 0
    assert labels.count("·") == sum(":" in one["name"] for one in described)


def test_every_round_of_the_largest_case_is_a_dot() -> None:
    records = [load(path) for path in RECORDS.glob("*-throughput-contest-*.json")]
    axes = drawn(rounds_figure(records)).axes[0]
    most = max(record.protocol["rounds"] for record in records)
    dots = [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert dots
    assert set(dots) == {most}
    assert rounds_figure([]) is None


def test_coverage_has_a_line_for_each_record() -> None:
    records = [load(path) for path in sorted(RECORDS.glob("*-estimator-*.json"))]
    axes = drawn(coverage_figure(records)).axes[0]
    shown = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert shown == pytest.approx([100 * r.results["coverage"]["estimate"] for r in records])


# ---- history -------------------------------------------------------------------------------


def timed(commit: str, values: list[float], torch: str = "2.14.1", cpu: str = "A") -> Record:
    samples = {"s": series(values, unit="s", better="lower")}
    record = new_record("throughput", protocol={"device": "cpu"}, samples=samples)
    environment = {"commit": commit, "machine": {"cpu": cpu}, "packages": {"torch": torch}}
    return replace(record, environment=environment)


def test_history_is_what_was_measured_twice_on_one_machine() -> None:
    section = history.section([timed("a" * 40, [1, 1, 1]), timed("b" * 40, [2, 3, 4])])
    assert section is not None
    track = section.data["throughput: s"]
    assert [middle for _, middle, _ in track["quartiles"]] == [1.0, 3.0]
    assert track["labels"] == ["aaaaaaaaaa, torch 2.14.1", "bbbbbbbbbb, torch 2.14.1"]
    drawn(next(block for block in section.blocks if isinstance(block, Figure)))


def test_one_commit_or_two_machines_are_no_history() -> None:
    assert history.section([timed("a", [1.0]), timed("a", [2.0])]) is None
    assert history.section([timed("a", [1.0], cpu="B"), timed("b", [2.0])]) is None
    assert history.section([timed("a", [1.0], torch="2.9.1"), timed("a", [2.0])]) is not None


def test_the_first_screen_of_a_real_study(study: Record) -> None:
    screen = front(study)
    assert screen is not None
    assert len(screen.answer) == 3
    text = " ".join(screen.answer)
    for told in ("1,197 images", "`digits`", "3 seeds", "Noise or image?", "95 % intervals"):
        assert told in text
    table = screen.blocks[0]
    bold = [row[0] for row in table.rows if row[2].tone == "strong"]
    assert bold == ["the noise, ε"]
