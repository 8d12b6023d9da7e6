"""The parts of the main job: each turns a plan into records."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.job.plan import Part, Plan
from bench.record import Record
from bench.terminal.usage import UsageError

if TYPE_CHECKING:
    from bench.measure.study.one_run import Setting


def setting(plan: Plan) -> "Setting":
    """The study's setting of a plan."""
    from bench.measure.study.one_run import Setting

    return Setting(plan.settings.design, plan.data, plan.data_dir, plan.device, plan.provider)


def check_study(plan: Plan) -> None:
    """Load the data and try the network on one image.

    Raises:
        UsageError: unknown or missing data, too few images, or images that the preset's network cannot halve.
    """
    import torch

    from bench.data import load

    data = load(plan.data, None if plan.data_dir is None else Path(plan.data_dir))
    design = plan.settings.design
    config = design.config(
        design.arms[0], seed=0, rate=1e-3, steps=1, device="cpu", provider="auto"
    )
    network = config.make_network(data.shape[0])
    try:
        network(data.train[:1], torch.ones(1, dtype=torch.int64))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"images of {data.shape[1]}×{data.shape[2]} do not fit the network of preset "
            f"{plan.preset!r} ({error}): crop or pad them"
        ) from error


def verify(plan: Plan) -> Iterator[Record]:
    """All laws on this implementation, and on the article's snippet."""
    from bench.measure.laws.examine import verification_record

    del plan  # the laws do not depend on it
    yield verification_record()


def throughput(plan: Plan) -> Iterator[Record]:
    """The benchmark suite, then the contest against other ways of noising a batch."""
    from bench.measure.throughput.contest import ContestPlan, contest_record
    from bench.measure.throughput.suite import SuitePlan, suite_record

    wanted = plan.settings.throughput
    yield suite_record(SuitePlan(plan.device, plan.threads, wanted.seconds, select=wanted.select))
    if wanted.shapes:
        threads = tuple(sorted({1, plan.threads}))
        yield contest_record(ContestPlan(wanted.shapes, threads, wanted.rounds, plan.device))


def study(plan: Plan) -> Iterator[Record]:
    """The 2 × 2 study."""
    from bench.measure.study.record import run_study

    yield run_study(setting(plan), command=plan.command, keep=plan.out / "runs")


def bound(plan: Plan) -> Iterator[Record]:
    """The exact figures of the bound that take seconds."""
    from bench.measure.bound import bound_record

    del plan  # closed forms do not depend on it
    yield bound_record()


PARTS = (
    Part("verify", "the laws on this implementation", verify),
    Part("throughput", "noise, q_sample, loss, training, sampling", throughput),
    Part("study", "what the network outputs against how its error is weighted", study),
    Part("bound", "the exact bound on data with a known density", bound),
)
"""In this order: nothing that is timed runs beside the study."""
