"""The page: its first screen, records side by side, text that stays text, digits, claims."""

import copy
import json
import random
import re
import sys
import types
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

from bench.__main__ import main
from bench.record import Record, load, new_record, save
from bench.record.schema import schema
from bench.report import build, claims, render
from bench.report.page import digits
from bench.report.page.blocks import (
    CLAIM_FIELDS,
    Cell,
    Code,
    Figure,
    Front,
    Note,
    Paragraph,
    Section,
    Table,
)
from bench.report.page.document import KINDS, MOST
from bench.report.page.figures import svg, unmarked
from bench.report.page.markdown import text

pytestmark = pytest.mark.any_torch

HOSTILE = (
    "[x](javascript:alert(1))",
    "<script>alert(1)</script>",
    "<javascript:alert(1)>",
    "![p](https://evil.example/p.png)",
    "https://evil.example/bare",
    "www.evil.example",
    "[ref][1]",
    "[ref]: javascript:alert(1)",
    "`` <b> `",
    "a\n\n# heading\n<img src=x onerror=alert(1)>",
    "</details></main><iframe>",
)


def part(monkeypatch: pytest.MonkeyPatch, name: str, **functions: object) -> None:
    monkeypatch.setitem(sys.modules, f"bench.report.{name}", types.SimpleNamespace(**functions))


def study(name: str, created: str, commit: str = "aaa") -> Record:
    record = new_record("study", protocol={}, data={"name": name})
    return replace(record, created=created, environment={"commit": commit})


class Links(HTMLParser):
    """Tags, and addresses that are not anchors of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = [v or "" for k, v in attributes if k in ("href", "src", "xlink:href")]
        self.addresses += [value for value in found if not value.startswith("#")]
        assert not any(name.startswith("on") for name, _ in attributes)


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    def section(records: list[Record]) -> Section:
        blocks = [
            block
            for told in HOSTILE
            for block in (
                Paragraph(told),
                Note(told),
                Table([told, "y"], [[told, Cell(told, "bad", told)]], told),
                Code(f"```\n{told}\n````"),
            )
        ]
        return Section("S", blocks, headlines=HOSTILE, front=Front(HOSTILE[:3], blocks))

    part(monkeypatch, "hostile", section=section)
    return render(build([study("<b>[d](javascript:1)</b>", "2026-01-01T00:00:00Z")], ["hostile"]))


def test_a_records_text_is_never_a_tag_or_a_link_in_html(hostile: dict[str, str]) -> None:
    page = Links(hostile["report.html"])
    assert page.addresses == []
    assert not page.tags & {"script", "iframe", "img", "object", "javascript:alert(1)"}


@pytest.mark.peers
def test_a_records_text_is_never_a_tag_or_a_link_in_markdown(hostile: dict[str, str]) -> None:
    """As a reader of GitHub's Markdown sees it, with bare addresses made into links."""
    parser = pytest.importorskip("markdown_it", reason="needs markdown-it-py (extra docs)")
    page = Links(
        parser.MarkdownIt("commonmark", {"html": True}).enable("table").render(hostile["report.md"])
    )
    assert page.addresses == []
    assert not page.tags & {"script", "iframe", "img", "a", "b"}
    outside = re.sub(r"(`+).*?\1", "", hostile["report.md"], flags=re.DOTALL)
    assert not re.search(r"https?://|www\.", outside)


def test_a_text_without_markup_reads_in_markdown_as_it_was_written() -> None:
    told = "−0.4 [−0.5, −0.3] a*b `x < y & z` **bold** FD[pca64]: ε"
    assert text(told) == told


# ---- records side by side ----------------------------------------------------------------


def sides(records: list[Record]) -> Section:
    names = ", ".join(str((record.data or {})["name"]) for record in records)
    figure = Figure("f", lambda canvas: canvas.subplots(), names)
    front = Front([f"answer {names}"], [Paragraph("front")])
    return Section("Study", [figure], headlines=[f"found {names}"], front=front)


def apart(record: Record) -> str:
    return str((record.data or {})["name"]) if record.kind == "study" else ""


def test_records_that_a_part_tells_apart_never_share_a_headline(monkeypatch) -> None:
    part(monkeypatch, "sides", section=sides, apart=apart)
    records = [study("old", "2026-01-01T00:00:00Z"), study("new", "2026-01-02T00:00:00Z")]
    report = build(records, ["sides"])
    titles = [section.title for section in report.sections[:2]]
    assert titles == ["Study (new)", "Study (old)"]
    assert [line.text for line in report.verdict] == ["(new) found new", "(old) found old"]
    assert set(report.drawings) == {"f", "f-2"}
    assert report.front is not None
    assert report.front.answer == ["answer new"]
    assert "answer old" in render(report)["report.html"]


def test_one_group_keeps_its_plain_name(monkeypatch) -> None:
    part(monkeypatch, "sides", section=sides, apart=apart)
    report = build([study("one", "2026-01-01T00:00:00Z")], ["sides"])
    assert report.sections[0].title == "Study"


def test_what_is_too_much_for_a_page_is_refused_by_name(monkeypatch) -> None:
    part(monkeypatch, "sides", section=sides, apart=apart)
    records = [study(f"d{i}", f"2026-01-0{i + 1}T00:00:00Z") for i in range(MOST + 2)]
    report = build(records, ["sides"])
    assert {name for name, _ in report.left_out} == {records[0].name, records[1].name}
    page = render(report)
    for name, _ in report.left_out:
        for file in ("report.html", "report.md", "report.json"):
            assert name in page[file]


def test_a_kind_that_no_part_shows_is_named() -> None:
    record = new_record("weather", protocol={})
    assert build([record]).left_out == (
        (record.name, "no part of this report shows the kind 'weather'"),
    )


def test_every_kind_that_a_part_picks_is_known() -> None:
    """A kind that is missing here would be shown and called unknown."""
    folder = Path(claims.__file__).parent
    picked = {
        kind
        for path in folder.rglob("*.py")
        for kind in re.findall(r"\.kind [!=]= \"([\w-]+)\"", path.read_text(encoding="utf-8"))
    }
    assert picked
    assert picked <= set(KINDS)


def test_a_bad_file_in_a_folder_costs_no_other(tmp_path, capsys) -> None:
    good = save(new_record("other", protocol={}), tmp_path)
    bad = tmp_path / "bad.json"
    bad.write_text(good.read_text()[:-40])
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "not shown: bad.json: bad.json is not strict JSON" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "bad.json" in page
    assert load(good).sha256 in page
    assert main(["report", str(bad), "--out", str(tmp_path / "out")]) == 2


def test_a_figure_that_cannot_be_drawn_costs_its_own_section(monkeypatch) -> None:
    def broken(canvas: object) -> None:
        raise ArithmeticError("log of −1")

    part(monkeypatch, "broken", section=lambda records: Section("B", [Figure("b", broken, "")]))
    part(monkeypatch, "sides", section=sides, apart=apart)
    report = build([study("one", "2026-01-01T00:00:00Z")], ["broken", "sides"])
    assert "ArithmeticError: log of −1" in report.broken[0]
    assert "found one" in render(report)["report.html"]


# ---- digits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((-0.39312, -0.4061, -0.3805), ("−0.393", "−0.406, −0.381")),
        ((11031.0, 9166.0, 13359.0), ("11,000", "9,200, 13,400")),
        ((2.5187, 2.515, 2.5223), ("2.5187", "2.5150, 2.5223")),
        ((99.96, 89.97, 109.95), ("100", "90, 110")),
        ((1.0, None, None), ("1.00", "")),
        ((0.0, -0.0496, 0.0496), ("0.000", "−0.050, 0.050")),
    ],
)
def test_an_interval_is_rounded_at_the_second_digit_of_its_half_width(given, told) -> None:
    assert digits.interval(*given) == told


@pytest.mark.parametrize("value", [1e-9, 3.14159e-3, 0.9996, 12.345, 99.96, 12345.6, -7.77e8])
def test_a_number_without_an_interval_is_within_half_a_unit_of_its_third_digit(value) -> None:
    shown = float(digits.number(value).replace("−", "-").replace(",", ""))
    assert abs(shown - value) <= 0.5e-2 * abs(value)
    assert digits.number(float("inf")) == "∞"


# ---- tables, figures ---------------------------------------------------------------------


def test_what_is_wider_than_long_is_transposed() -> None:
    header = ["arm", *(f"m{i}" for i in range(9))]
    rows = [[f"a{k}", *(f"{k}{i}" for i in range(9))] for k in range(2)]
    upright = Table(header, rows, "c").upright
    assert upright.header == ["arm", "a0", "a1"]
    assert upright.rows[3] == ["m3", "03", "13"]
    narrow = Table(header[:4], [row[:4] for row in rows])
    assert narrow.upright is narrow


def test_panels_stand_below_one_another_on_a_phone() -> None:
    seen = []

    def draw(canvas) -> None:
        seen.append([axes.get_gridspec().get_geometry() for axes in canvas.subplots(1, 2)])

    figure = Figure("two", draw, "c", narrow=(4, 6))
    wide, narrow = svg(figure), svg(figure, narrow=True)
    assert seen[0] == [(1, 2)] * 2
    assert seen[1] == [(2, 1)] * 2
    assert "two-narrow-name" in narrow
    assert "two-narrow" not in wide


def test_logarithmic_axes_have_numbers_and_no_markup() -> None:
    def draw(canvas) -> None:
        left, right = canvas.subplots(1, 2)
        left.plot([1e-6, 1e-3, 10.0], [1, 2, 3])
        left.set_xscale("log")
        right.plot([1.0, 2.0, 3.0], [1, 2, 3])
        right.set_xscale("log")

    texts = re.findall(r">([^<>]+)</text>", svg(Figure("log", draw, "c")))
    assert {"10⁻⁶", "0.1", "10"} <= set(texts)
    assert {"1", "2", "3"} <= set(texts)  # within a decade every tick is named
    assert not any("$" in text or "mathdefault" in text for text in texts)


def test_labels_hold_no_marks() -> None:
    assert unmarked("**every arm** at `simple`, *blind*, a*b") == "every arm at simple, blind, a*b"


def test_the_first_screen_has_three_sentences_at_most() -> None:
    with pytest.raises(ValueError, match="4 sentences"):
        Front(["a", "b", "c", "d"])


# ---- claims ------------------------------------------------------------------------------


def claim(name: str, verdict: str = "holds", **changes: object) -> dict[str, object]:
    row = dict.fromkeys(CLAIM_FIELDS, "")
    known = {"id": name, "says": f"says {name}", "verdict": verdict, "measured": 2.0}
    return row | known | {"low": 1.0, "high": 3.0, "seeds": 5, "predicted": None} | changes


def test_claims_are_in_the_report_the_most_decisive_first(monkeypatch) -> None:
    rows = [
        claim("c-noise", "within noise"),
        claim("b-wide"),
        claim("a-narrow", low=1.9, high=2.1),
        claim("d-none", "not measured (needs a GPU)", measured=None, low=None, high=None),
        claim("e-many", "fails", seeds=9),
        claim("f-few", "too few seeds"),
    ]
    section = Section("S", [], front=Front(["An answer."], [Paragraph("table")]), claims=rows)
    part(monkeypatch, "claimed", section=lambda records: section)
    report = build([study("d", "2026-01-01T00:00:00Z")], ["claimed"])
    ids = [row["id"] for row in report.claims]
    assert ids == ["e-many", "a-narrow", "b-wide", "c-noise", "f-few", "d-none"]
    content = json.loads(render(report)["report.json"])
    jsonschema.validate(content, schema("report"), jsonschema.Draft202012Validator)
    assert [row["id"] for row in content["claims"]] == ids
    assert report.sections[0].title == "Claims"
    assert report.front is not None
    table = report.front.blocks[1]
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [f"says {name}" for name in ids[:5]]


def test_a_claim_with_an_unknown_verdict_or_without_a_field_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with one of holds, fails"):
        claims.ranked([claim("x", "maybe")])
    with pytest.raises(ValueError, match="claim 'x' has no reason"):
        claims.ranked([{k: v for k, v in claim("x").items() if k != "reason"}])


def test_no_claims_is_an_empty_list() -> None:
    assert json.loads(render(build([]))["report.json"])["claims"] == []


# ---- damaged records -------------------------------------------------------------------------

RECORDS = Path(__file__).parents[1] / "reports" / "records"
DAMAGE = (None, -1, 1e308, "", "<script>", "$\\frac{", [], {}, True, "x" * 5000)
SMALL = ("run", "mutation")


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to every value in a record, of long lists the first two only."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = list(enumerate(value))[:2]
    return found + [p for key, inner in items for p in places(inner, (*path, key))]


def test_a_damaged_record_costs_its_own_section_only() -> None:
    """Valid records of which one value is of another kind: the page is made, and the other section stands."""
    rng = random.Random(20261128)
    sound = load(next(iter(RECORDS.glob("*-noise-*.json"))))
    for _ in range(15):
        kind = rng.choice(SMALL)
        record = load(rng.choice(sorted(RECORDS.glob(f"*-{kind}-[0-9a-f]*.json"))))
        root = rng.choice(["protocol", "samples", "results", "environment"])
        content = copy.deepcopy(getattr(record, root))
        ways = places(content)
        if not ways:
            continue
        *way, last = rng.choice(ways)
        inner = content
        for key in way:
            inner = inner[key]
        inner[last] = rng.choice(DAMAGE)
        page = render(build([replace(record, **{root: content}), sound]))
        assert "numbers of the noise stream pass" in page["report.html"]
        assert not Links(page["report.html"]).addresses
