"""`ddpm-bench verify` without `-v`: a screen, whatever was found; failures of one root once; short snippets."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.__main__ import main
from bench.commands.verify import _subjects
from bench.measure.laws.examine import Subject, examine, known_laws, results
from bench.record import load
from bench.report.laws.outcomes import cause
from bench.report.laws.screen import Screen, causes_of, fitted, screen
from ddpm_ref.conformance import Implementation, Reference, Setting

pytestmark = pytest.mark.any_torch

REPORTS = Path(__file__).parents[1] / "reports"
RECORDS = sorted(REPORTS.glob("rec*/*-verify-*.json")) + sorted(REPORTS.glob("repos*/*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem[-12:])
@pytest.mark.parametrize("size", [Screen(37, 110), Screen(20, 72)])
def test_every_committed_verification_fits_the_screen(path: Path, size: Screen) -> None:
    found = load(path).results
    lines = screen(found, size).splitlines()
    assert len(lines) <= size.lines
    assert max(map(len, lines)) <= size.columns
    broken = {one["source"] for one in found["implementations"]}
    assert all(any(source.partition(":")[0] in line for line in lines) for source in broken)


def test_room_goes_to_what_stands_first() -> None:
    blocks = [[["a"], ["a", "a2"]], [["b"], ["b", "b2", "b3"]], [["c"], ["c", "c2"]]]
    assert fitted(blocks, 9) == ["a", "a2", "b", "b2", "b3", "c", "c2"]
    assert fitted(blocks, 5) == ["a", "a2", "b", "c", "c2"]
    assert fitted(blocks, 3) == ["a", "b", "c"]
    assert fitted(blocks, 2) == ["a", "… and 2 more"]
    assert fitted([[["x", "y"]]], 1) == ["x", "y"]  # nothing shorter is known


class Wrong(Reference):
    """q_sample without the root, and a reverse variance that raises."""

    name = "wrong"

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return super().q_sample(setting, x0, t, 1.1 * noise)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        raise ArithmeticError("no variance")


def found_on(subject: Implementation, *topics: str) -> dict:
    chosen = known_laws(topics)
    return results([examine(Subject(subject, "mine.py:Mine"), chosen)], chosen)


def test_failures_of_one_root_are_shown_once() -> None:
    found = found_on(Wrong(), "I1-marginal", "I15-noise", "I20-reverse", "I9-kl")
    causes = causes_of(found, "wrong")
    assert [list(one.groups) for one in causes] == [["I1-marginal", "I15-noise"], ["I20-reverse"]]
    text = screen(found, Screen(70, 110))
    assert text.startswith("wrong")
    assert "1 law holds, 3 fail (3 bug)" in text
    assert text.count("BUG in q_sample") == 1
    assert text.count("no variance") == 1
    assert "also:      I15-noise noise survives" in text
    assert "hold: I9-kl" in text
    assert "result = Wrong().q_sample(" in text


class Numbers(Implementation):
    """A schedule of 100 numbers, and noise that is too strong."""

    name = "numbers"
    own = Setting("mine", 100, log_snr=tuple(5.0 - 0.1 * k for k in range(100)))

    def settings(self) -> Sequence[Setting]:
        return (Setting("linear", 1000), self.own)

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if setting.log_snr is None:
            return Reference().q_sample(setting, x0, t, noise)
        kept = torch.tensor(setting.log_snr, dtype=torch.float64).sigmoid()[t - 1]
        kept = kept.reshape(-1, *[1] * (x0.ndim - 1))
        return (kept.sqrt() * x0 + (1 - kept) * noise).to(x0.dtype)


def test_a_snippet_names_a_schedule_of_many_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    found = found_on(Numbers(), "I1-marginal")
    row = next(row for row in found["laws"] if row["dtype"] == "float64")
    assert "Numbers().settings()[1]" in row["snippet"]
    assert max(map(len, row["snippet"].splitlines()[:-1])) <= 110
    exec(row["snippet"], {})
    printed = capsys.readouterr().out
    shown = float(
        printed.replace("[", " ").replace("]", " ").replace(",", " ").split("(")[1].split()[0]
    )
    assert shown == pytest.approx(row["witness"]["measured"], abs=1e-3)


def test_everything_is_printed_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--law", "I9-kl"]) == 0
    brief = capsys.readouterr().out
    assert main(["verify", "--law", "I9-kl", "-v"]) == 0
    full = capsys.readouterr().out
    assert "float64" not in brief
    assert "hold: I9-kl" in brief
    assert "KL of Gaussians" in full
    assert "bfloat16" in full


def test_answers_that_do_not_come_in_time_have_one_cause() -> None:
    late = {
        "status": "error",
        "message": "no answer within 3 s",
        "root": "no answer in time at my.py:7",
    }
    assert {cause({**late, "law": law}) for law in ("I1", "I2")} == {"no answer in time at my.py:7"}


def test_a_subject_that_two_names_stand_for_is_examined_once() -> None:
    names = [one.implementation.name for one in _subjects(["torchmetrics", "fid", "ddpm_ref"])]
    assert len(names) == len(set(names)) > 1
