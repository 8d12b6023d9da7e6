"""The parts of the main job: each turns a plan into records."""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.job.plan import Part, Plan
from bench.record import Record
from bench.terminal.usage import UsageError

if TYPE_CHECKING:
    from bench.measure.study.store import Store
    from bench.measure.study.task import Setting


def settings(plan: Plan) -> "list[Setting]":
    """The settings of a plan's studies."""
    from bench.measure.study.designs import name_of
    from bench.measure.study.task import Setting

    return [
        Setting(
            row.design,
            row.data,
            plan.data_dir,
            plan.device,
            plan.provider,
            study=name_of(row),
        )
        for row in plan.studies
    ]


def check_study(plan: Plan) -> None:
    """Load the data of every study and try its network on one example.

    Raises:
        UsageError: unknown or missing data, too few images, or images that the study's network cannot halve.
    """
    import torch

    from bench.data import load

    for row in plan.studies:
        data = load(row.data, None if plan.data_dir is None else Path(plan.data_dir))
        design = row.design
        config = design.config(
            design.arms[0], seed=0, rate=1e-3, steps=1, device="cpu", provider="auto"
        )
        network = config.make_network(data.shape)
        try:
            network(data.train[:1], torch.ones(1, dtype=torch.int64))
        except (RuntimeError, ValueError) as error:
            size = "×".join(map(str, data.shape[1:] or data.shape))
            raise UsageError(
                f"images of {size} do not fit the network of study {row.name!r} ({error}): crop or pad them"
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
    """Every study of the plan, each a record as soon as it is done; what was finished before is reused."""
    from bench.measure.study.executors import executor_from
    from bench.measure.study.record import Means, Shard, run_study
    from bench.measure.study.store import Store

    index, count = plan.shard
    broken: list[str] = []
    with executor_from(plan.executor) as executor:
        for offset, chosen in enumerate(settings(plan)):
            shard = Shard(index, count, offset)
            if not shard.seeds(chosen.design.seeds):
                continue
            store = Store(plan.out / "runs")
            means = Means(executor=executor, store=store, shard=shard, limit=plan.limit)
            try:
                record = run_study(chosen, command=plan.command, means=means)
            except Exception as error:  # one study must not cost the reader the others
                traceback.print_exc(file=sys.stderr)
                broken.append(f"{chosen.study or chosen.data}: {type(error).__name__}: {error}")
                continue
            _say_what_was_reused(store)
            yield record
    if broken:
        raise RuntimeError(f"{len(broken)} studies broke: {'; '.join(broken)}")


def _say_what_was_reused(store: "Store") -> None:
    if store.reused:
        print(f"study: {store.reused} finished runs were reused", flush=True)
    if store.stale:
        others = f" and {len(store.stale) - 1} more" if len(store.stale) > 1 else ""
        print(f"study: run again, because stored with {store.stale[0]}{others}", flush=True)


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
