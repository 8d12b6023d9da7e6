"""A seeded sample of mutations against the tests: score, survivors, and which of those can be explained.

    score = killed / (sample − equivalent)                                                          (1)

A mutation is *equivalent* if `equivalent.toml` lists its statement, before and after, with the reason why no test can find it: the
result is the same, or differs below what any tolerance sees. The raw share killed/sample is reported beside it. With n mutations
drawn at random the score has a binomial interval (`bench.record.statistics.coverage`).
"""

import math
import os
import random
import signal
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from tests.mutation.operators import Mutation, apply, mutations
from tests.mutation.worker import Verdict, preload, run_tests

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")

LAWS_TEST = "tests/test_laws.py::test_holds_here"
CONTRACT_TEST = "tests/test_contract_mpmath.py"
IDENTITIES_TEST = "tests/test_identities.py"
EDGES_TEST = "tests/test_edges.py"

_PATIENCE = 10
"""Wall-clock time may be this many times the limit of processor time: the machine may be busy with something else."""

TESTS: Mapping[str, Sequence[str]] = {
    "schedule": ("tests/test_schedule.py", CONTRACT_TEST),
    "gaussian": ("tests/test_gaussian.py", CONTRACT_TEST),
    "noise": ("tests/test_noise.py",),
    "process": ("tests/test_process.py", CONTRACT_TEST),
    "parameterization": ("tests/test_parameterization.py", CONTRACT_TEST),
    "objective": ("tests/test_objective.py", CONTRACT_TEST),
    "reverse": ("tests/test_elbo.py", "tests/test_sampler.py"),
    "terms": ("tests/test_elbo.py", CONTRACT_TEST),
    "elbo": ("tests/test_elbo.py", CONTRACT_TEST),
    "oracle": (
        "tests/test_oracle.py",
        "tests/test_empirical_oracle.py",
        "tests/test_expected_bound.py",
        "tests/test_elbo.py",
        "tests/test_rank_limited.py",
    ),
    "estimator": (
        "tests/test_latin.py",
        "tests/test_estimator_design.py",
        "tests/test_estimator.py",
    ),
    "optimization": ("tests/test_optimization.py",),
    "config": ("tests/test_config.py",),
    "batches": ("tests/test_batches.py",),
    "sampler": ("tests/test_sampler.py",),
}
"""The tests of each module (a file or a package of `ddpm_ref`), fastest first; identities and laws follow for all."""


@dataclass(frozen=True)
class Result:
    """One mutation and what became of it; `reason` says why a survivor is equivalent, "" for all others."""

    mutation: Mutation
    verdict: Verdict
    reason: str = ""

    @property
    def killed(self) -> bool:
        """A test failed, or the mutant did not end."""
        return self.verdict.status != "survived"


class ControlFailed(Exception):  # noqa: N818 - says what happened
    """The tests fail without any mutation, so that nothing can be concluded from their failing with one."""


def files(part: str) -> list[str]:
    """Source files of a module of `ddpm_ref`, relative to the repository."""
    single = ROOT / "ddpm_ref" / f"{part}.py"
    found = [single] if single.exists() else sorted((ROOT / "ddpm_ref" / part).glob("*.py"))
    return [str(path.relative_to(ROOT)) for path in found]


def population(parts: Sequence[str]) -> list[Mutation]:
    """All mutations of these modules."""
    return [
        mutation
        for part in parts
        for path in files(part)
        for mutation in mutations(path, (ROOT / path).read_text())
    ]


def draw(everything: Sequence[Mutation], count: int, seed: int) -> list[Mutation]:
    """A seeded sample without replacement, in the order of the files."""
    chosen = random.Random(seed).sample(range(len(everything)), min(count, len(everything)))
    return [everything[index] for index in sorted(chosen)]


def tests_of(path: str) -> tuple[str, ...]:
    """The tests that run on a mutant of this file, in their order."""
    part = Path(path).relative_to("ddpm_ref").parts[0].removesuffix(".py")
    chosen = (*TESTS[part], EDGES_TEST, IDENTITIES_TEST, LAWS_TEST)
    return tuple(test for test in chosen if (ROOT / test.partition("::")[0]).exists())


def explanations(path: Path = EQUIVALENT) -> dict[tuple[str, str, str], str]:
    """(file, before, after) → reason."""
    with path.open("rb") as stream:
        rows = tomllib.load(stream).get("equivalent", [])
    return {(row["file"], row["before"], row["after"]): row["reason"] for row in rows}


@dataclass
class _Running:
    process: ForkProcess
    answer: Connection
    mutation: Mutation | None
    began: float

    def ended(self) -> Verdict:
        """The verdict of a child that has answered or died; waits for it."""
        try:
            status, killer, seconds = self.answer.recv()
        except (
            EOFError
        ):  # it died before it could answer: by its own fault, or at the limit of processor time
            self.process.join()
            late = self.process.exitcode == -signal.SIGXCPU
            seconds = time.monotonic() - self.began
            return Verdict("timeout" if late else "killed", "the process died", seconds)
        self.process.join()
        return Verdict("survived" if status == 0 else "killed", killer, seconds)

    def abandoned(self) -> Verdict:
        """The verdict of a child that takes too long; it and its children are ended."""
        os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        return Verdict("timeout", "", time.monotonic() - self.began)


def _start(mutation: Mutation | None, tests: Sequence[str], limit: int | None = None) -> _Running:
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    mutated = None
    if mutation is not None:
        mutated = (mutation.path, apply(mutation, (ROOT / mutation.path).read_text()))
    process = context.Process(target=run_tests, args=(ROOT, tests, mutated, sending, limit))
    process.start()
    sending.close()
    return _Running(process, receiving, mutation, time.monotonic())


def control(paths: Sequence[str]) -> float:
    """Seconds of processor time that the unmutated tests of all these files take together.

    Raises:
        ControlFailed: with the first test that fails.
    """
    tests = dict.fromkeys(test for path in paths for test in tests_of(path))
    verdict = _start(None, tuple(tests)).ended()
    if verdict.status != "survived":
        raise ControlFailed(f"the tests fail without a mutation: {verdict.killer}")
    return verdict.seconds


def run(
    sample: Sequence[Mutation],
    *,
    jobs: int,
    timeout: float,
    on_result: Callable[[Result], None],
    known: Mapping[tuple[str, str, str], str] | None = None,
) -> list[Result]:
    """The verdict of every mutation, in the order of the sample.

    Args:
        sample: what to run.
        jobs: children at a time.
        timeout: seconds of processor time after which a mutant counts as killed; ten times that in wall-clock time.
        on_result: called as results come in.
        known: reasons of equivalent mutations; `equivalent.toml` by default.
    """
    preload()
    reasons = explanations() if known is None else known
    results: dict[str, Result] = {}
    for mutation, verdict in _verdicts(sample, jobs, timeout):
        key = (mutation.path, mutation.before, mutation.after)
        reason = reasons.get(key, "") if verdict.status == "survived" else ""
        result = Result(mutation, verdict, reason)
        results[_key(mutation)] = result
        on_result(result)
    return [results[_key(mutation)] for mutation in sample]


def _key(mutation: Mutation) -> str:
    return f"{mutation.path} {mutation.node} {mutation.variant}"


def _verdicts(
    sample: Sequence[Mutation], jobs: int, timeout: float
) -> Iterator[tuple[Mutation, Verdict]]:
    waiting = list(reversed(sample))
    running: list[_Running] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            mutation = waiting.pop()
            running.append(_start(mutation, tests_of(mutation.path), math.ceil(timeout)))
        ready = wait([child.answer for child in running], timeout=1.0)
        for child in list(running):
            late = time.monotonic() - child.began > _PATIENCE * timeout
            if child.answer not in ready and not late:
                continue
            running.remove(child)
            assert child.mutation is not None
            verdict = child.ended() if child.answer in ready else child.abandoned()
            yield child.mutation, verdict


def score(results: Sequence[Result]) -> tuple[int, int]:
    """(killed, sample without the equivalent ones): eq. (1)."""
    counted = [result for result in results if not result.reason]
    return sum(result.killed for result in counted), len(counted)
