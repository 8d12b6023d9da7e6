"""README, findings and the gallery say what the committed reports say, and nothing typed by hand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.report import gallery
from docs import numbers
from docs.numbers import rendered

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports"


@pytest.mark.parametrize("path", numbers.pages(), ids=lambda path: path.name)
def test_every_marked_number_is_that_of_its_report(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert rendered(page) == page, "run python -m docs.numbers"


def test_every_committed_record_stays_below_the_size_that_is_promised() -> None:
    """1.2 MB: a record of every library keeps what failed, and the rest in short."""
    records = [path for path in REPORTS.rglob("*.json") if path.name != "report.json"]
    assert len(records) > 20
    assert {path.name: size for path in records if (size := path.stat().st_size) >= 1_200_000} == {}


def test_the_gallery_is_that_of_the_committed_reports(tmp_path: Path) -> None:
    """As `ddpm-bench report --gallery reports` writes it."""
    for path in REPORTS.glob("*/report.*"):
        copy = tmp_path / path.parent.name / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for path in gallery.write(tmp_path):
        assert path.read_text(encoding="utf-8") == (REPORTS / path.name).read_text(encoding="utf-8")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    content = {
        "title": "Which?",
        "subtitle": "digits · 1 commit",
        "passed": False,
        "answer": ["This <b> one [x](javascript:1)."],
        "front": [
            {"type": "figure"},
            {
                "type": "table",
                "header": ["a", "b"],
                "rows": [["`x`", {"text": "1", "tone": "strong"}]],
            },
        ],
        "verdict": [{"text": "First."}, {"text": "Second."}],
        "sections": [
            {"key": "speed", "headlines": ["**10 ×**"], "data": {"rows": [{"x": -1.23456}]}}
        ],
        "records": [{"created": "2026-01-02T00:00:00Z"}],
    }
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("answer", "\nThis &lt;b&gt; one [x]\\(javascript:1).\n"),
        ("front", "\n\n| a | b |\n| --- | --- |\n| `x` | **1** |\n\n"),
        ("findings", "\n\n- First.\n- Second.\n\n"),
        ("finding speed 0", "**10 ×**"),
        ("value speed rows.0.x", "−1.23"),
        ("value speed rows.0.x .1f", "−1.2"),
    ],
)
def test_markers(report: Path, wanted: str, shown: str) -> None:
    start, end = f"<!-- report one {wanted} -->", "<!-- /report -->"
    page = f"before {start}old\ntext{end} after"
    fresh = f"before {start}{shown}{end} after"
    assert rendered(page, report) == fresh
    assert rendered(fresh, report) == fresh


@pytest.mark.parametrize(
    "wanted", ["nothing", "finding speed 7", "value speed rows.x", "finding other 0"]
)
def test_a_marker_that_asks_for_what_is_not_there_is_named(report: Path, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"marker `<!-- report one {wanted} -->`"):
        rendered(f"<!-- report one {wanted} --><!-- /report -->", report)


def test_the_newest_report_comes_first_and_its_strings_are_text(report: Path, capsys) -> None:
    (report / "two").mkdir()
    newer = json.loads((report / "one" / "report.json").read_text())
    newer |= {"records": [{"created": "2026-01-03T00:00:00Z"}], "passed": True}
    (report / "two" / "report.json").write_text(json.dumps(newer))
    (report / "two" / "report.png").write_bytes(b"")
    assert main(["report", "--gallery", str(report)]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    for name in ("index.html", "README.md"):
        page = (report / name).read_text()
        assert page.index("two/report") < page.index("one/report")
        assert page.count("report.png") == 1
        assert "<b>" not in page
        assert 'href="javascript' not in page
        assert name == "index.html" or "](javascript" not in page
        assert page.count("Not everything worked") == 1


def test_stale_numbers_are_found_by_the_command() -> None:
    command = [sys.executable, "-m", "docs.numbers", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", numbers.pages(), ids=lambda page: page.name)
def test_marked_text_is_read_as_markdown(page: Path) -> None:
    """A line (or list item) that begins with a comment is HTML to its end: its `code` and **stress** would be shown as typed."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if re.match(r"\s*([*-] |\d+\. )?<!--[^>]*-->\s*\S", line)]


@pytest.mark.parametrize("name", sorted(path.parent.name for path in REPORTS.glob("*/report.md")))
def test_no_figure_is_left_over_from_an_earlier_report(name: str) -> None:
    page = (REPORTS / name / "report.md").read_text(encoding="utf-8")
    drawn = [path.name for path in (REPORTS / name / "figures").glob("*.svg")]
    assert drawn
    assert [figure for figure in drawn if f"figures/{figure}" not in page] == []
