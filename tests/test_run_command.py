"""`ddpm-bench run`: parts that cannot sink each other, statuses, and errors of use before any work."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.commands.run import _command
from bench.job.plan import Part, Plan, Progress, run_parts
from bench.job.presets import PRESETS
from bench.measure.study.design import FACTORIAL
from bench.measure.study.designs import STUDIES, Study
from bench.record import Record, load, new_record
from bench.report.parts import section
from bench.terminal.usage import Interrupted, on_interrupt


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        preset="quick",
        settings=PRESETS["quick"],
        studies=PRESETS["quick"].rows(),
        data="digits",
        data_dir=None,
        device="cpu",
        provider="auto",
        threads=1,
        command="ddpm-bench run",
        out=tmp_path,
    )


def good(plan: Plan) -> Iterator[Record]:
    yield new_record("study", protocol={"preset": plan.preset}, results={"runs": []})


def half(plan: Plan) -> Iterator[Record]:
    yield new_record("study", protocol={}, results={"runs": []})
    raise RuntimeError("the second half is missing")


def wrong(plan: Plan) -> Iterator[Record]:
    yield new_record("verify", protocol={}, results={"failed": ["I1", "I5"]})


class TestParts:
    def test_all_done(self, plan: Plan) -> None:
        progress = Progress(plan)
        assert run_parts([Part("study", "…", good)], progress)
        assert [record.kind for record in map(load, progress.files)] == ["study", "run"]

    def test_a_broken_part_is_a_row_and_the_others_go_on(
        self, plan: Plan, capsys: pytest.CaptureFixture[str]
    ) -> None:
        progress = Progress(plan)
        parts = [Part("throughput", "…", half), Part("study", "…", good)]
        assert not run_parts(parts, progress)
        broken, done = progress.outcomes
        assert (broken.status, done.status) == ("broke", "done")
        assert broken.reason.startswith(
            "RuntimeError: the second half is missing (test_run_command.py"
        )
        assert len(broken.records) == 1  # what it made before it broke is kept
        assert "throughput: broke" in capsys.readouterr().out

    def test_what_a_record_says_is_wrong_fails_its_part(self, plan: Plan) -> None:
        progress = Progress(plan)
        assert not run_parts([Part("verify", "…", wrong)], progress)
        assert progress.outcomes[0].reason == "2 laws failed: I1, I5"

    def test_the_report_names_what_is_missing(self, plan: Plan) -> None:
        progress = Progress(plan)
        run_parts([Part("throughput", "…", half), Part("study", "…", good)], progress)
        found = section(progress.records)
        assert found is not None
        assert found.failed
        assert "the second half is missing" in found.headlines[0]

    def test_an_interruption_says_what_is_finished_and_where(self, plan: Plan) -> None:
        def endless(plan: Plan) -> Iterator[Record]:
            (plan.out / "runs").mkdir()
            (plan.out / "runs" / "run-eps-simple-seed1.json").write_text("{}")
            raise KeyboardInterrupt
            yield

        progress = Progress(plan)
        parts = [Part("verify", "…", good), Part("study", "…", endless)]
        with pytest.raises(Interrupted) as stopped, on_interrupt(progress.finished):
            run_parts(parts, progress)
        text = str(stopped.value)
        assert text.startswith("Finished: verify.")
        assert f"{plan.out / 'records'} (1)" in text
        assert f"{plan.out / 'runs'} (1)" in text


class TestUse:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--preset", "quik"], "quick"),
            (["--data", "digit"], "did you mean digits"),
            (["--data", "mnist", "--data-dir", "absent"], "--data-dir"),
            (["--data", "folder:absent"], "is not a directory"),
            (["--provider", "nativ"], "native"),
            (["--device", "gpu"], "known"),
            (["--only", "studi"], "study"),
            (["--fast"], "--fast"),
            (["--shard", "3/2"], "I/N"),
            (["--limit", "soon"], "seconds"),
        ],
    )
    def test_errors_of_use_are_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
    ) -> None:
        assert main(["run", "--out", str(tmp_path), *words]) == 2
        text = capsys.readouterr().err
        assert message in text
        assert len(text.strip().splitlines()) == 1
        assert not list(tmp_path.iterdir())

    def test_an_unwritable_out(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").write_text("")
        assert main(["run", "--out", str(tmp_path / "file")]) == 2
        assert "choose another folder with --out" in capsys.readouterr().err

    def test_images_that_the_network_cannot_halve(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from PIL import Image

        for index in range(40):
            Image.new("L", (7, 7), index).save(tmp_path / f"{index}.png")
        status = main(["run", "--data", f"folder:{tmp_path}", "--out", str(tmp_path / "out")])
        assert status == 2
        assert "images of 7×7 do not fit the network" in capsys.readouterr().err

    def test_the_command_that_is_recorded_holds_no_path(self) -> None:
        assert _command("quick", "folder:/home/someone/pictures") == (
            "ddpm-bench run --preset quick --data folder:PATH"
        )

    def test_the_command_line_needs_no_torch(self) -> None:
        import subprocess

        code = "import sys, bench.commands.run; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)


class TestPresets:
    @pytest.mark.parametrize("row", STUDIES.values(), ids=STUDIES)
    def test_every_study_has_pairs_and_tunes_on_a_seed_of_its_own(self, row: Study) -> None:
        design = row.design
        assert len(set(design.seeds)) == len(design.seeds) >= (2 if row.name == "tiny" else 3)
        assert design.tuning_seed not in design.seeds
        assert len({arm.name for arm in design.arms}) == len(design.arms)
        json.dumps(design.protocol(), allow_nan=False)

    @pytest.mark.parametrize("row", STUDIES.values(), ids=STUDIES)
    def test_every_arm_has_a_valid_configuration(self, row: Study) -> None:
        design = row.design
        for arm in design.arms:
            config = design.config(arm, seed=1, rate=1e-3, steps=10, device="cpu", provider="auto")
            assert config.normalize_weights
            assert config.make_schedule().log_snr[1:].isfinite().all()

    @pytest.mark.parametrize("name", ["quick", "standard", "full"])
    def test_presets_hold_the_two_by_two_design(self, name: str) -> None:
        assert any(set(FACTORIAL) <= set(row.design.arms) for row in PRESETS[name].rows())
