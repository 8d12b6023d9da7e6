"""Torch releases in rotation: who is called, in what order, and what the page says. No second torch is needed here."""

import configparser
import json
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.job import releases
from bench.job.releases import Rotation, found, rotate
from bench.record import Record, load, save
from bench.terminal.usage import UsageError

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "reports" / "records"

FAKE = """#!{python}
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1]); out.mkdir(parents=True, exist_ok=True)
with open(out.parent / "calls.txt", "a") as log:
    log.write({name!r} + (" first" if "--first" in sys.argv else "") + "\\n")
sys.exit({status})
"""


def environment(folder: Path, name: str, status: int = 0) -> Path:
    python = folder / f"bench-{name}" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE.format(python=sys.executable, name=name, status=status))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


def test_every_environment_has_its_turn_in_every_round(tmp_path: Path) -> None:
    for name in ("torch2.9", "torch2.14"):
        environment(tmp_path, name)
    rotation = Rotation(found([str(tmp_path)]), tmp_path / "out" / "records", rounds=3)
    assert len(list(rotate(rotation))) == 6
    calls = (tmp_path / "out" / "calls.txt").read_text().split("\n")[:-1]
    once = ["torch2.14 first", "torch2.9 first"]
    assert calls == once + ["torch2.14", "torch2.9"] * 2


def test_an_environment_that_fails_is_named(tmp_path: Path) -> None:
    environment(tmp_path, "torch2.9", status=3)
    environment(tmp_path, "torch2.14")
    with pytest.raises(
        UsageError, match=r"torch2\.9.* ended with 3; what it measured before is kept"
    ):
        list(rotate(Rotation(found([str(tmp_path)]), tmp_path / "out" / "records")))


@pytest.mark.parametrize(
    ("given", "message"),
    [(["nowhere"], "neither a python nor a folder"), ([sys.executable], "1 environments")],
)
def test_one_environment_is_no_comparison(given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        found(given)


def under(record: Record, torch: str) -> Record:
    packages = {**record.environment["packages"], "torch": torch}
    return replace(record, environment={**record.environment, "packages": packages})


def test_the_command_measures_and_writes_one_page(tmp_path: Path, monkeypatch, capsys) -> None:
    """Committed records stand for what the environments measure; the second torch's version is made up."""
    pythons = [environment(tmp_path, name) for name in ("torch2.9", "torch2.14")]
    out = tmp_path / "releases"
    kinds = ("verify", "study")
    kept = [load(next(iter(sorted(RECORDS.glob(f"*-{kind}-*.json"))))) for kind in kinds]

    def measured(rotation: Rotation) -> list[str]:
        assert list(rotation.pythons) == pythons
        for record in kept:
            for torch in ("2.9.1", "2.14.1"):
                save(under(record, torch), rotation.out)
        return ["measured"]

    monkeypatch.setattr(releases, "rotate", measured)
    assert main(["releases", *map(str, pythons), "--out", str(out)]) == 0
    assert "page: " in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert "What changes with torch?" in page
    comparisons = json.loads((out / "report.json").read_text())["comparisons"]
    (study,) = [one for one in comparisons if one["kind"] == "study"]
    series = len(study["changes"])
    assert series > 10
    assert f"{series} of {series} series equal to the bit" in page
    assert "No law, part or exact number changed." in page


def test_a_share_of_a_round_is_a_contest_and_once_the_laws_and_a_study(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(
        "bench.measure.throughput.contest.contest_record",
        lambda plan: made.append(plan) or "contest",
    )
    monkeypatch.setattr(releases, "_once", lambda: iter(["verify", "study"]))
    assert list(releases.measure(7, first=True)) == ["verify", "study", "contest"]
    assert list(releases.measure(7, first=False)) == ["contest"]
    assert made[0].rounds == 7


def test_tox_has_an_environment_for_every_release_of_the_table() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    (section,) = [name for name in tox.sections() if name.startswith("testenv:bench-torch")]
    names = section.partition("{")[2].rstrip("}").split(",")
    labels = dict(line.split(" = ") for line in tox["tox"]["labels"].split("\n") if " = " in line)
    assert [f"torch{name}" for name in names] == labels["matrix"].split(", ")
    assert labels["bench"] == f"bench-torch{names[0]}, bench-torch{names[-1]}, bench"
