"""The study on any executor, in shards, after an interruption: one result."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.measure.study import processes, record
from bench.measure.study.design import FACTORIAL, Arm, Design
from bench.measure.study.executors import executor_from
from bench.measure.study.one_run import perform
from bench.measure.study.processes import bits, duplicates, one_processor_a_seed, run_tasks
from bench.measure.study.record import Means, Shard, planned, run_study
from bench.measure.study.store import Store
from bench.measure.study.task import Setting, Task, ingredients, key
from bench.record import Record
from bench.record.study import merged
from bench.terminal.usage import UsageError

pytestmark = pytest.mark.any_torch

TINY = Design(
    arms=FACTORIAL[:2],
    seeds=(1, 2, 3),
    rates=(1e-3, 1e-2),
    T=23,
    network_options={"base": 2, "multipliers": (1, 2), "attention": (1,)},
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
SETTING = Setting(TINY, "digits")


def study_bits(found: Record) -> dict[str, Any]:
    """All that the study's tasks decide."""
    results = {name: value for name, value in found.results.items() if name != "execution"}
    results["runs"] = [bits(run) for run in results["runs"]]
    results["arms"] = [
        {**arm, "tuning": [bits(run) for run in arm["tuning"]]} for arm in results["arms"]
    ]
    return {"results": results, "samples": found.samples, "seeds": found.seeds}


@pytest.fixture(scope="module")
def serial() -> Record:
    return run_study(SETTING, command="x", means=Means(workers=1))


class TestKey:
    def test_every_ingredient_changes_it(self) -> None:
        task = Task("run", FACTORIAL[0], 1, 1e-3)
        others = [
            (SETTING, replace(task, kind="tune")),
            (SETTING, replace(task, arm=FACTORIAL[1])),
            (SETTING, replace(task, seed=2)),
            (SETTING, replace(task, rate=2e-3)),
            (replace(SETTING, data="mixture"), task),
            (replace(SETTING, data_sha256="0"), task),
            (replace(SETTING, device="cuda"), task),
            (replace(SETTING, design=replace(TINY, steps=6)), task),
            (replace(SETTING, design=replace(TINY, training={"precision": "bfloat16"})), task),
        ]
        assert len({key(*pair) for pair in [(SETTING, task), *others]}) == len(others) + 1

    def test_which_other_runs_there_are_does_not_change_it(self) -> None:
        task = Task("run", FACTORIAL[0], 1, 1e-3)
        wider = replace(TINY, arms=FACTORIAL, seeds=(1, 2, 3, 4), rates=(1e-3,))
        assert key(SETTING, task) == key(replace(SETTING, design=wider), task)

    def test_a_variant_changes_it_for_its_own_arms(self) -> None:
        blind = Task("run", Arm("eps", "simple", "blind"), 1, 1e-3)
        other = replace(TINY, variants={"blind": {"skip": "learned"}})
        assert key(SETTING, blind) != key(replace(SETTING, design=other), blind)

    def test_a_path_stays_out_of_it(self) -> None:
        found = ingredients(
            Setting(TINY, "folder:/home/someone"), Task("run", FACTORIAL[0], 1, 1.0)
        )
        assert "someone" not in json.dumps(found)

    def test_a_worker_with_other_data_says_so(self) -> None:
        setting = replace(SETTING, data_sha256="f" * 64)
        (result,) = run_tasks(setting, [Task("run", FACTORIAL[0], 1, 1e-3)])
        assert "the study was planned with ffffffffffff" in result["failed"]


class TestStore:
    def test_what_is_there_is_not_done_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run_study(SETTING, command="x", means=Means(workers=1, store=Store(tmp_path)))
        monkeypatch.setattr("bench.measure.study.worker.perform", forbidden)
        store = Store(tmp_path)
        second = run_study(SETTING, command="x", means=Means(workers=1, store=store))
        assert second.results["runs"] == first.results["runs"]
        assert store.reused == len(FACTORIAL[:2]) * (2 + 3)
        assert not store.stale

    def test_another_key_is_said_and_run_again(self, tmp_path: Path) -> None:
        task = Task("run", FACTORIAL[0], 1, 1e-3)
        run_tasks(SETTING, [task], store=Store(tmp_path))
        store = Store(tmp_path)
        (result,) = run_tasks(replace(SETTING, design=replace(TINY, steps=6)), [task], store=store)
        assert store.reused == 0
        assert store.stale == ["eps/simple, seed 1, rate 0.001: another design"]
        assert result["curve"]["steps"][-1] == 6

    def test_a_damaged_file_is_said_and_run_again(self, tmp_path: Path) -> None:
        task = Task("run", FACTORIAL[0], 1, 1e-3)
        (first,) = run_tasks(SETTING, [task], store=Store(tmp_path))
        (path,) = tmp_path.glob("run-*.json")
        path.write_text(path.read_text()[:100])
        store = Store(tmp_path)
        (second,) = run_tasks(SETTING, [task], store=store)
        assert "is damaged" in store.stale[0]
        assert bits(first) == bits(second)

    def test_what_failed_or_was_stopped_is_not_kept(self, tmp_path: Path) -> None:
        task = Task("run", FACTORIAL[0], 1, 1e-3)
        store = Store(tmp_path)
        (failed,) = run_tasks(replace(SETTING, provider="none such"), [task], store=store)
        (stopped,) = run_tasks(SETTING, [task], store=store, limit=1e-9)
        assert "failed" in failed
        assert stopped["stopped"] is True
        assert not list(tmp_path.glob("run-*.json"))

    def test_hosts_are_named_by_a_hash_that_only_the_folder_can_repeat(
        self, tmp_path: Path
    ) -> None:
        task = Task("run", FACTORIAL[0], 1, 1e-3)
        hosts = [
            run_tasks(SETTING, [task], store=Store(tmp_path / name))[0]["worker"]["host"]
            for name in "ab"
        ]
        assert hosts[0] != hosts[1]
        assert Store(tmp_path / "a").salt() == Store(tmp_path / "a").salt()


def forbidden(*arguments: Any) -> Any:
    raise AssertionError(f"done again: {arguments[1]}")


def test_two_shards_merged_equal_one_run(serial: Record, tmp_path: Path) -> None:
    shards = [
        run_study(SETTING, command="x", means=Means(workers=1, shard=Shard(index, 2)))
        for index in (2, 1)
    ]
    assert [shard.seeds for shard in shards] == [(2,), (1, 3)]
    (together,) = merged(shards)
    assert study_bits(together) == study_bits(serial)
    assert "shard" not in together.protocol
    assert merged([serial, serial]) == [serial]  # a copy in another folder
    assert merged([*shards, shards[0]]) == merged(shards)


def test_a_shard_given_twice_is_refused() -> None:
    shard = run_study(SETTING, command="x", means=Means(workers=1, shard=Shard(1, 2)))
    later = replace(shard, created="2999-01-01T00:00:00Z")
    with pytest.raises(UsageError, match="give each shard once"):
        merged([shard, later])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_deal_every_seed_once(count: int) -> None:
    seeds = (11, 12, 13, 14, 15)
    for offset in range(4):
        dealt = [Shard(index + 1, count, offset).seeds(seeds) for index in range(count)]
        assert sorted(seed for part in dealt for seed in part) == list(seeds)


class Elsewhere(ThreadPoolExecutor):
    """An executor whose workers say that they are other machines, in turn."""

    def __init__(self, processors: list[str]) -> None:
        super().__init__(1)
        self.processors, self.calls = processors, 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        name = self.processors[self.calls % len(self.processors)]
        self.calls += 1

        def labelled() -> Any:
            results = fn(*args, **kwargs)
            return [
                {**r, "worker": {**r["worker"], "processor": name, "host": f"host of {name}"}}
                for r in results
            ]

        return super().submit(labelled)


def test_the_arms_of_a_seed_come_from_one_processor_type() -> None:
    tasks = [Task("run", arm, seed, 1e-3) for seed in (1, 2) for arm in TINY.arms]
    with Elsewhere(["A", "B", "A", "A", "C"]) as executor:
        results = run_tasks(SETTING, tasks, executor=executor)
        fixed, again = one_processor_a_seed(SETTING, tasks, results, executor=executor, store=None)
    assert again == [1]
    kinds = [{r["worker"]["processor"] for r in fixed if r["seed"] == seed} for seed in (1, 2)]
    assert kinds == [{"C"}, {"A"}]
    assert [bits(r) for r in fixed] == [bits(r) for r in results]


def test_a_duplicate_of_every_host_says_whether_its_bits_agree() -> None:
    tasks = [Task("tune", TINY.arms[0], 1, rate) for rate in (1e-3, 1e-2)]
    with Elsewhere(["A", "B"]) as executor:
        results = run_tasks(SETTING, tasks, executor=executor)
        rows = duplicates(SETTING, tasks, results, executor=executor, store=None)
    assert [row["host"] for row in rows] == ["host of A", "host of B"]
    assert [row["agree"] for row in rows] == [True, True]
    spoilt = [{**results[0], "objective": 17.0}]
    (row,) = duplicates(SETTING, tasks[:1], spoilt, executor=None, store=None)
    assert row["agree"] is False


def test_our_own_pool_outlives_a_worker(tmp_path: Path) -> None:
    tasks = [Task("run", TINY.arms[0], seed, 1e-3) for seed in (1, 2, 3)]
    expected = [bits(perform(planned(SETTING), task)) for task in tasks]
    job = KillsOnce(SETTING, tasks, None, str(tmp_path / "killed"))
    found = dict(processes._own_pool(job, [0, 1, 2], 2))
    assert [bits(found[index]) for index in range(3)] == expected
    assert (tmp_path / "killed").exists()


class KillsOnce(processes._Job):
    """A job whose second task ends its worker the first time; the salt is the path that says so."""

    def submit(self, executor: Executor, index: int) -> Future[list[Any]]:
        if index != 1:
            return super().submit(executor, index)
        return executor.submit(dies_once, self.setting, self.tasks[index], self.salt)


def dies_once(setting: Setting, task: Task, flag: str) -> list[Any]:
    from bench.measure.study.worker import work

    if not Path(flag).exists():
        Path(flag).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return work(setting, [task])


def own_executor() -> Executor:
    return ThreadPoolExecutor(1)


def not_an_executor() -> int:
    return 3


class TestNames:
    def test_a_function_that_makes_one(self) -> None:
        with executor_from(f"{__name__}:own_executor") as executor:
            assert isinstance(executor, ThreadPoolExecutor)
        with executor_from(None) as nothing:
            assert nothing is None

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("slurm", "write dask:tcp"),
            ("no.such.module:make", "No module named"),
            ("json:make", "has no attribute 'make'"),
            (f"{__name__}:not_an_executor", "returned a int"),
        ],
    )
    def test_mistakes(self, spec: str, message: str) -> None:
        with pytest.raises(UsageError, match=message), executor_from(spec):
            pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as made:
        yield made


@pytest.mark.peers
@pytest.mark.filterwarnings("default")
class TestDask:
    """Starting a cluster of two processes takes some seconds."""

    def test_a_cluster_equals_one_process(self, serial: Record, cluster: Any) -> None:
        with executor_from(f"dask:{cluster.scheduler_address}") as executor:
            found = run_study(SETTING, command="x", means=Means(executor=executor))
        assert study_bits(found) == study_bits(serial)

    def test_a_worker_killed_in_the_middle(self, serial: Record, cluster: Any) -> None:
        killed: list[int] = []

        def kill(result: Any) -> None:
            if not killed:
                pids = [worker.pid for worker in cluster.workers.values()]
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

        with executor_from(f"dask:{cluster.scheduler_address}") as executor:
            means = Means(executor=executor, finished=kill)
            found = run_study(SETTING, command="x", means=means)
        assert killed
        assert study_bits(found) == study_bits(serial)
        pairs = [(run["arm"], run["seed"]) for run in found.results["runs"]]
        assert len(pairs) == len(set(pairs)) == 6

    def test_nobody_answers(self) -> None:
        pytest.importorskip("distributed")
        with (
            pytest.raises(UsageError, match="no dask scheduler answers"),
            executor_from("dask:tcp://127.0.0.1:9"),
        ):
            pass


_INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_study_anywhere import SETTING
from bench.measure.study.record import Means, run_study
from bench.measure.study.store import Store
run_study(SETTING, command="x", means=Means(workers=1, store=Store(Path({folder!r}))))
"""


def test_after_kill_9_only_what_was_unfinished_is_done(
    tmp_path: Path, serial: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(Path(__file__).parents[1])
    code = _INTERRUPTED.format(root=root, folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("run-*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(tmp_path.glob("*-seed*.json")))
    done: list[Task] = []

    def counted(setting: Setting, task: Task, *rest: Any) -> Any:
        done.append(task)
        return perform(setting, task, *rest)

    monkeypatch.setattr("bench.measure.study.worker.perform", counted)
    monkeypatch.setattr(record, "duplicates", lambda *a, **k: [])
    store = Store(tmp_path)
    found = run_study(SETTING, command="x", means=Means(workers=1, store=store))
    assert store.reused == finished
    assert len(done) == 4 + 6 - finished
    assert study_bits(found) == study_bits(serial)
