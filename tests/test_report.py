"""The report: a pure function of records, self-contained, and the same content three times."""

import html.parser
import importlib
import json
import random
import re
import sys
import types
from dataclasses import replace

import jsonschema
import pytest

from bench.__main__ import main
from bench.record import load, new_record, save
from bench.record.schema import schema
from bench.report import build, render, reproduce, write
from bench.report.page import figures as figure_style
from bench.report.page.blocks import Cell, Code, Figure, Fold, Note, Paragraph, Section, Table
from bench.report.page.document import PARTS
from bench.report.page.html import inline, is_number
from bench.report.title import subtitle

pytestmark = pytest.mark.any_torch

SENTENCES = {
    "paragraph": "Weights, data order and ε are shared",
    "note": "Two degrees of freedom only",
    "caption": "Paired intervals",
    "cell": "+0.104 [+0.06, +0.15]",
    "toned": "yes, step 812",
    "figure": "Loss against steps",
    "fold": "All learning rates",
    "folded": "0.0013",
    "code": "ddpm-bench run --data digits",
    "headline": "The weighting decides",
}


def _draw(canvas):
    axes = canvas.subplots()
    axes.plot([1, 2, 3], [3, 1, 2], label="ε · simple")
    axes.plot([1, 2, 3], [1, 2, 2], color=figure_style.PALETTE[3])
    axes.imshow([[0, 1], [1, 0]], extent=(1, 2, 1, 2))
    axes.fill_between([1, 2], [1, 2], alpha=0.3)
    axes.legend()


def _section(records):
    if not any(record.kind == "study" for record in records):
        return None
    blocks = [
        Paragraph(SENTENCES["paragraph"] + " <&> `code`"),
        Note(SENTENCES["note"], "warn"),
        Table(
            ["arm", "Δ", "diverged"],
            [["a|b", SENTENCES["cell"], Cell(SENTENCES["toned"], "bad", hint='"hinted" <b>')]],
            SENTENCES["caption"],
        ),
        Figure("curves", _draw, SENTENCES["figure"], alt='A "falling" curve'),
        Figure("again", _draw, "Twice"),
        Fold(SENTENCES["fold"], [Table(["x"], [[SENTENCES["folded"]]])]),
        Code(SENTENCES["code"] + " <script> && true"),
    ]
    return Section(
        "The study", blocks, data={"x": [1.0, None]}, headlines=[SENTENCES["headline"] + "."]
    )


def _broken(records):
    raise KeyError("loss")


@pytest.fixture(scope="module")
def parts():
    """A part with content and one without a record of its kind; beside them one that breaks."""
    with pytest.MonkeyPatch.context() as patch:
        sections = {"whole": _section, "absent": lambda records: None, "broken": _broken}
        for name, function in sections.items():
            module = types.SimpleNamespace(section=function)
            patch.setitem(sys.modules, f"bench.report.{name}", module)
        yield ("whole", "absent")


@pytest.fixture(scope="module")
def records():
    return [
        new_record(kind, protocol={"command": f"ddpm-bench {kind}"}, data={"name": "digits"})
        for kind in ("study", "verify", "bound")
    ]


@pytest.fixture(scope="module")
def files(records, parts):
    return render(build(records, parts))


class _Page(html.parser.HTMLParser):
    """Collects what could reach out of the page, ids, links, and whether elements nest."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.ids, self.targets, self.open, self.addresses = [], [], [], [], []
        self.feed(text)

    def handle_startendtag(self, tag, attributes):
        self._see(tag, dict(attributes))

    def handle_starttag(self, tag, attributes):
        self._see(tag, dict(attributes))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def _see(self, tag, attributes):
        self.elements.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        for name in ("href", "xlink:href", "src"):
            if value := attributes.get(name):
                (self.targets if value.startswith("#") else self.addresses).append(value)


def test_same_records_same_bytes_in_any_order(records, parts, files, tmp_path):
    shuffled = records[:]
    random.Random(2).shuffle(shuffled)
    saved = [load(save(record, tmp_path)) for record in [*shuffled, records[0]]]
    assert render(build(saved, parts)) == files


@pytest.mark.parametrize("name", SENTENCES)
def test_every_rendering_has_the_same_content(files, name):
    for file in ("report.html", "report.md", "report.json"):
        assert SENTENCES[name] in files[file].replace("\u00a0", " "), file


def test_html_is_well_formed_and_self_contained(files):
    page = _Page(files["report.html"])
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets} <= set(page.ids)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.elements)
    assert not re.search(r"@import|url\((?!#)", files["report.html"])
    assert "default-src 'none'" in files["report.html"]


def test_html_has_light_dark_phone_and_print(files):
    for rule in ("prefers-color-scheme: dark", "max-width: 40rem", "@media print", "width=device"):
        assert rule in files["report.html"]


def test_what_a_record_says_is_text_and_never_markup(files):
    assert "digits &lt;script&gt; &amp;&amp; true" in files["report.html"]
    assert 'title="&#34;hinted&#34; &lt;b&gt;"' in files["report.html"]
    assert "&lt;&amp;&gt; <code>code</code>" in files["report.html"]


def test_verdict_comes_first(files):
    for text in files.values():
        if SENTENCES["headline"] in text and SENTENCES["paragraph"] in text:
            assert text.index(SENTENCES["headline"]) < text.index(SENTENCES["paragraph"])


def test_figures_take_the_colours_of_the_page(files):
    svg = files["figures/curves.svg"]
    for i in (0, 3):
        assert f"var(--series-{i}, {figure_style.PALETTE[i]})" in svg
    used = re.findall(r"(?<!, )#[0-9a-f]{6}\b", svg.partition("</style>")[2])
    assert set(used) <= {"#000000", "#ffffff"}, "a colour outside the shared style"
    assert '<title id="curves-name">Curves</title>' in svg
    assert '<desc id="curves-told">A "falling" curve</desc>' in svg
    assert 'aria-labelledby="curves-name" aria-describedby="curves-told"' in svg


def test_markdown_table_escapes_bars(files):
    assert "| a\\|b | +0.104 [+0.06, +0.15] | ✗ yes, step 812 |" in files["report.md"]
    assert "](figures/curves.svg)" in files["report.md"]


def test_json_satisfies_the_published_schema(files):
    content = json.loads(files["report.json"], parse_constant=pytest.fail)
    jsonschema.validate(content, schema("report"), jsonschema.Draft202012Validator)
    keys = [section["key"] for section in content["sections"]]
    assert keys == ["the-study", "environment", "how-to-reproduce"]
    assert content["sections"][0]["data"] == {"x": [1.0, None]}
    assert content["passed"] is True


def test_records_and_commands_are_named(files, records):
    for record in records:
        for file in ("report.html", "report.md", "report.json"):
            assert record.sha256 in files[file]
        assert record.protocol["command"] in files["report.md"]


def test_the_data_below_the_title_are_those_of_its_question() -> None:
    study = new_record("study", protocol={}, data={"name": "digits"})
    estimator = new_record("estimator", protocol={}, data={"name": "fashion-mnist"})
    assert subtitle([estimator, study]).startswith("digits · ")
    assert "fashion" not in subtitle([estimator, study])
    assert subtitle([estimator]).startswith("fashion-mnist · ")


def test_commands_stand_under_the_commit_that_they_were_run_at():
    def at(commit, kind, **protocol):
        return replace(new_record(kind, protocol=protocol), environment={"commit": commit})

    records = [
        at("aaa", "run", command="ddpm-bench run"),
        at("aaa", "bound"),
        at("bbb", "noise", command="ddpm-bench noise-test"),
        at("aaa", "study", command="ddpm-bench run"),
        at("bbb", "throughput"),
    ]
    code = next(block for block in reproduce.section(records).blocks if isinstance(block, Code))
    assert code.text.splitlines() == [
        "git checkout aaa",
        "ddpm-bench run",
        "git checkout bbb",
        "ddpm-bench noise-test",
        "# throughput: its protocol is in the record",
    ]


def test_a_broken_part_is_said_and_costs_no_other(records, parts):
    report = build(records, ["broken", *parts])
    files = render(report)
    assert report.broken[0].startswith("broken: KeyError: 'loss' (test_report.py, line ")
    assert not report.passed
    assert "could not be computed: broken: KeyError" in files["report.md"]
    assert "- ✗ **Broken**: not everything worked" in files["report.md"]
    assert SENTENCES["paragraph"] in files["report.html"]


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_absent_without_its_records(name):
    other = new_record("other", protocol={})
    module = importlib.import_module(f"bench.report.{name}")
    assert module.section([]) is None
    assert module.section([other]) is None


def test_no_records(parts):
    files = render(build([], parts))
    assert "These records support no verdict" in files["report.html"]
    jsonschema.validate(json.loads(files["report.json"]), schema("report"))


def test_write(records, parts, tmp_path):
    paths = write(build(records, parts), tmp_path / "new")
    names = [path.relative_to(tmp_path / "new").as_posix() for path in paths]
    assert names[0] == "report.html"
    assert set(names) == {
        "report.html",
        "report.md",
        "report.json",
        "figures/curves.svg",
        "figures/again.svg",
    }


def test_failures_come_first_and_mark_nothing_else(records, parts):
    verdict = build(records, [*parts, "broken"]).verdict
    assert [(line.key, line.failed) for line in verdict] == [("broken", True), ("the-study", False)]


def test_figure_names_are_unique(records, monkeypatch):
    section = Section("S", [Figure("same", _draw, "1"), Fold("x", [Figure("same", _draw, "2")])])
    module = types.SimpleNamespace(section=lambda records: section)
    monkeypatch.setitem(sys.modules, "bench.report.twice", module)
    report = build(records, ["twice"])
    assert "two figures are named 'same'" in report.broken[0]


def test_figure_names_are_unique_over_parts(records, monkeypatch):
    for name in ("one", "two"):
        section = Section(name, [Figure("same", _draw, "1")])
        module = types.SimpleNamespace(section=lambda records, section=section: section)
        monkeypatch.setitem(sys.modules, f"bench.report.{name}", module)
    with pytest.raises(ValueError, match="two figures are named 'same'"):
        build(records, ["one", "two"])


def test_not_finite_data_cost_their_own_section(records, parts, monkeypatch):
    section = Section("S", [], data={"x": float("nan")})
    module = types.SimpleNamespace(section=lambda records: section)
    monkeypatch.setitem(sys.modules, "bench.report.nan", module)
    report = build(records, ["nan", *parts])
    assert "section s.x is nan" in report.broken[0]
    assert SENTENCES["paragraph"] in render(report)["report.html"]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="one cell per column"):
        Table(["a", "b"], [["1"]])


def test_inline_markup_and_escaping():
    assert inline("a *b c* d*e*f") == "a <em>b c</em> d*e*f"
    text = inline("**b** `x<y` [l](https://example.org/?a=1&b=2) <script>")
    assert text == (
        "<strong>b</strong> <code>x&lt;y</code> "
        "[l](https://example.org/?a=1&amp;b=2) &lt;script&gt;"
    )


@pytest.mark.parametrize(
    "text", ["1.5", "−0.1 [−0.2, 0.1]", "+3 %", "≤ 0.01", "–", "**2.5**", "×1.2"]
)
def test_numbers_are_recognized(text):
    assert is_number(text)


@pytest.mark.parametrize("text", ["ε", "holds", "x₀ · simple", "I1 marginals"])
def test_words_are_no_numbers(text):
    assert not is_number(text)


def test_command(tmp_path, capsys):
    folder = tmp_path / "records"
    paths = [save(new_record(kind, protocol={}), folder) for kind in ("other", "another")]
    assert main(["report", str(paths[1]), "--out", str(tmp_path / "one")]) == 0
    assert main(["report", str(folder), "--out", str(tmp_path / "all")]) == 0
    assert (tmp_path / "one" / "report.html").stat().st_size > 1000
    assert capsys.readouterr().out.count("report.json") == 2


def test_command_errors_of_use(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words in (["missing.json"], [str(tmp_path / "empty")], []):
        assert main(["report", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
