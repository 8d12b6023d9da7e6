"""The main job, part by part: verify, measure, train, bound. Each part makes records, and none can sink another.

A part that raises becomes a row with its reason in the record of the run (kind `run`), which the report shows first among what
failed. Records are saved the moment they exist, so that an interruption loses only what was in progress. Throughput is measured before
the study starts, because nothing that is timed shares the machine with anything else.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.job.presets import Preset
from bench.measure.study.designs import Study
from bench.record import Record, new_record, save
from bench.record.kinds import violations

KIND = "run"


@dataclass(frozen=True)
class Plan:
    """What one call of `ddpm-bench run` is to do.

    Attributes:
        preset: name of the preset.
        settings: its contents.
        studies: what is trained and compared: the preset's, or those that some claims need.
        data: name of the images' data set, where the caller chose one, else that of the first study.
        data_dir: its directory, or None.
        device: `cpu` or `cuda`.
        provider: of the noise.
        threads: threads of everything that is timed.
        command: what reproduces the run, without paths.
        out: where records and report go.
        executor: who runs the training, `bench.measure.study.executors`; None = processes of this machine.
        shard: the part (1 …) of how many parts of every study.
        limit: seconds after which a single run is stopped.
    """

    preset: str
    settings: Preset
    studies: tuple[Study, ...]
    data: str
    data_dir: str | None
    device: str
    provider: str
    threads: int
    command: str
    out: Path
    executor: str | None = None
    shard: tuple[int, int] = (1, 1)
    limit: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    Attributes:
        part: its name.
        status: `done`; `failed` where it ended and found something wrong; `broke` where it could not end.
        seconds: how long it took.
        reason: what was wrong, "" otherwise.
        records: file names of its records.
    """

    part: str
    status: str
    seconds: float
    reason: str = ""
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One part of the main job.

    Attributes:
        name: as in the report's table.
        doing: for the terminal, what is being done.
        produce: makes the part's records, each yielded as soon as it is complete.
    """

    name: str
    doing: str
    produce: Callable[[Plan], Iterator[Record]]


class Progress:
    """What is finished, for the end of the job and for Ctrl-C."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcomes: list[Outcome] = []
        self.records: list[Record] = []
        self.files: list[Path] = []

    def keep(self, record: Record) -> str:
        """Save a record and remember it; its file name."""
        path = save(record, self.plan.out / "records")
        self.records.append(record)
        self.files.append(path)
        return path.name

    def finished(self) -> str:
        """What is finished and where it lies, in words."""
        parts = [outcome.part for outcome in self.outcomes]
        runs = sorted((self.plan.out / "runs").glob("run-*.json"))
        lines = [f"Finished: {', '.join(parts)}." if parts else "No part was finished."]
        lines += (
            [f"Records: {self.plan.out / 'records'} ({len(self.files)})."] if self.files else []
        )
        lines += [f"Single training runs: {self.plan.out / 'runs'} ({len(runs)})."] if runs else []
        return " ".join(lines)


def _execute(part: Part, progress: Progress) -> Outcome:
    """Run one part to its end, whatever happens inside; the outcome is added to `progress`."""
    print(f"{part.name}: {part.doing}", flush=True)
    began = time.perf_counter()
    names: list[str] = []
    wrong: list[str] = []
    outcome = Outcome(part.name, "done", 0.0)
    try:
        for record in part.produce(progress.plan):
            names.append(progress.keep(record))
            wrong += violations(record)
    except Exception as error:
        outcome = replace(outcome, status="broke", reason=_reason(error))
        traceback.print_exc(file=sys.stderr)
    if wrong and outcome.status == "done":
        outcome = replace(outcome, status="failed", reason="; ".join(wrong))
    took = round(time.perf_counter() - began, 1)
    outcome = replace(outcome, seconds=took, records=tuple(names))
    progress.outcomes.append(outcome)
    print(f"{part.name}: {outcome.status} in {took:.0f} s {outcome.reason}".rstrip(), flush=True)
    return outcome


def _reason(error: Exception) -> str:
    """Kind, message and place of an error, without a directory."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"


def _summary_record(progress: Progress) -> Record:
    """The record of kind `run`: how each part ended."""
    from bench.data import without_path

    plan = progress.plan
    return new_record(
        KIND,
        protocol={
            "preset": plan.preset,
            "data": without_path(plan.data).removesuffix(":PATH"),
            "device": plan.device,
            "command": plan.command,
        },
        results={
            "parts": [
                {**asdict(outcome), "records": list(outcome.records)}
                for outcome in progress.outcomes
            ]
        },
    )


def run_parts(parts: Sequence[Part], progress: Progress) -> bool:
    """All parts in turn; whether every one is done and found nothing wrong."""
    for part in parts:
        _execute(part, progress)
    progress.keep(_summary_record(progress))
    return all(outcome.status == "done" for outcome in progress.outcomes)
