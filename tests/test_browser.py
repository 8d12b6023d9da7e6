"""A real report in a real browser: it asks for nothing, says nothing, names its figures, cuts and loses nothing."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.record import Record, load
from bench.report import build, write
from bench.report.page.document import Report
from docs.pictures import chromium
from tests.browser import Browser

RECORDS = Path(__file__).parents[1] / "reports" / "records"

pytestmark = [
    pytest.mark.skipif(
        chromium() is None,
        reason="what a page looks like is asked of Chromium, and there is none on the PATH",
    ),
    pytest.mark.any_torch,
]

OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"
BEYOND = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('pre') && !e.closest('svg'))
  .filter(e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40))
"""
"""What sticks out of the window, except where it scrolls in a frame of its own."""
HIDDEN_COLUMN = """
[...document.querySelectorAll('.scroll')].filter(e => e.querySelector('table'))
  .filter(e => getComputedStyle(e.querySelector('th')).position !== 'sticky').length
"""
OVERLAP = """
(() => { const b = [...document.querySelectorAll('.front > *, .evidence > *, main > *')]
    .filter(e => e.getClientRects().length && !['absolute', 'fixed'].includes(getComputedStyle(e).position));
  const hit = (a, c) => { const p = a.getBoundingClientRect(), q = c.getBoundingClientRect();
    return p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1; };
  return b.flatMap((a, i) => b.slice(i + 1).filter(c => !a.contains(c) && !c.contains(a) && hit(a, c))
    .map(c => a.tagName + '.' + a.className + ' and ' + c.tagName + '.' + c.className)); })()
"""


def _records() -> list[Record]:
    """One committed record of every kind, the newest."""
    every = map(load, sorted(RECORDS.glob("*.json")))
    # of the studies that of images, which has a first screen
    newest = {r.kind: r for r in every if r.kind != "study" or "distance" in r.results}
    return list(newest.values())


@pytest.fixture(scope="module")
def report() -> Report:
    return build(_records())


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(report, tmp_path_factory.mktemp("report"))[0]


@pytest.fixture(scope="module")
def tab(page: Path) -> Iterator[Browser]:
    with Browser() as browser:
        browser.open(page)
        browser.evaluate(OPEN)
        yield browser


def test_the_page_asks_for_nothing_and_says_nothing(tab: Browser) -> None:
    urls = [event["request"]["url"] for event in tab.seen("Network.requestWillBeSent")]
    assert [url for url in urls if not url.startswith("data:")] == [urls[0]]
    assert urls[0].startswith("file:")
    for method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert tab.seen(method) == []


def test_the_accessibility_tree_names_and_describes_every_figure(
    tab: Browser, report: Report
) -> None:
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    images = [n for n in nodes if n.get("role", {}).get("value") in ("image", "img")]
    named = {n.get("name", {}).get("value", "") for n in images if not n.get("ignored")}
    wide = [name for name in report.drawings if not name.endswith("-narrow")]
    assert {name.replace("-", " ").capitalize() for name in wide} <= named
    frames = [n for n in nodes if n.get("role", {}).get("value") == "figure"]
    assert len(frames) > len(wide)  # tables are figures too
    assert all(n.get("name", {}).get("value") for n in frames if not n.get("ignored"))
    told = [
        n.get("description", {}).get("value", "") for n in images if n.get("name", {}).get("value")
    ]
    assert all(len(text) > 20 and not re.search(r"`|\*\*", text) for text in told)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_or_overlaps(tab: Browser, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    tab.call("Emulation.setEmulatedMedia", features=features)
    tab.resize(width)
    assert tab.evaluate(BEYOND) == []
    assert tab.evaluate(OVERLAP) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    dark = "rgb(21, 24, 28)"
    assert (tab.evaluate("getComputedStyle(document.body).backgroundColor") == dark) is (
        scheme == "dark"
    )


def test_first_columns_stay_while_tables_scroll(tab: Browser) -> None:
    tab.resize(390)
    assert tab.evaluate(HIDDEN_COLUMN) == 0


def test_panels_stack_on_a_phone(tab: Browser) -> None:
    tab.resize(390)
    assert tab.evaluate(
        "[...document.querySelectorAll('.roomy')].every(e => !e.getClientRects().length)"
    )
    assert tab.evaluate("[...document.querySelectorAll('.phone svg')].length") >= 3
    tab.resize(1280)
    assert tab.evaluate(
        "[...document.querySelectorAll('.phone')].every(e => !e.getClientRects().length)"
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_of_the_first_screen_is_cut(tab: Browser, width: int) -> None:
    tab.resize(width)
    beyond = "[...document.querySelectorAll('.evidence .scroll')].map(e => e.scrollWidth - e.clientWidth)"
    found = tab.evaluate(beyond)
    assert found
    assert max(found) <= 0


def test_the_first_screen_answers_on_the_first_screen(tab: Browser) -> None:
    """At 1280 × 900: title, answer and the table, without scrolling."""
    tab.resize(1280, 900)
    bottom = tab.evaluate(
        "document.querySelector('.evidence table').getBoundingClientRect().bottom + scrollY"
    )
    assert bottom < 900


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext on the PATH")
def test_print_loses_no_column(tab: Browser, report: Report, tmp_path: Path) -> None:
    """Every head of every table is in the PDF: nothing is cut at the paper's edge, nothing stays folded."""
    tab.call("Emulation.clearDeviceMetricsOverride")
    heads = tab.evaluate(
        "[...document.querySelectorAll('table')].map(t => [...t.querySelectorAll('thead th')].map(h => h.textContent))"
    )
    tab.pdf(tmp_path / "page.pdf")
    # -raw: in the order of drawing, cell by cell; by place, the lines of a head mix with those of its neighbour.
    command = ["pdftotext", "-raw", str(tmp_path / "page.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    printed = re.sub(r"[\s\u00ad-]+", "", text)
    assert len(heads) > 20
    lost = [h for row in heads for h in row if re.sub(r"[\s\u00ad-]+", "", h) not in printed]
    assert not lost
