"""The documentation as one site: it builds, needs no network, and no link in it is broken."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs the extra `docs`")
pytest.importorskip("myst_parser", reason="needs the extra `docs`")
pytest.importorskip("furo", reason="needs the extra `docs`")

pytestmark = pytest.mark.peers
DOCS = Path(__file__).parents[1] / "docs"
SOURCE = (DOCS / "derivation.md").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Ids, internal links, and what a browser would fetch from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.ids |= {str(value) for name, value in attributes if name == "id"}
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        elif tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.fetched.append(str(given["src"]))
        elif tag == "link" and given.get("href") and given.get("rel") != "index":
            self.fetched.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, in a process of its own: about ten seconds, most of them the import and the API's docstrings."""
    import subprocess

    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-d", str(out / "doctrees")]
    done = subprocess.run(
        [*command, str(DOCS), str(out / "html")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    for source in DOCS.glob("*.md"):
        assert (site / source.with_suffix(".html").name).is_file()


def test_no_page_fetches_anything_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        outside = [address for address in page.fetched if re.match(r"(\w+:)?//", address)]
        assert not outside, f"{path.name}: {outside}"


def test_style_sheets_fetch_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"@import\s+(url\()?[\"']?(https?:)?//|url\([\"']?(https?:)?//", text
        ), path


def test_no_internal_link_is_broken(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"\w+:|//", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            known = pages.get(target)
            if known is None:
                broken += [f"{path.name}: {link}"] * (not target.is_file())
            elif anchor and anchor not in known.ids:
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_every_formula_is_mathml_and_every_equation_can_be_linked_to(site: Path) -> None:
    text = re.sub(r"`[^`]*`", "", SOURCE)
    displayed = len(re.findall(r"\$\$.*?\$\$", text, flags=re.DOTALL))
    inline = text.replace("$$", "").count("$") // 2
    page = (site / "derivation.html").read_text(encoding="utf-8")
    assert page.count("<math") == displayed + inline
    numbers = re.findall(r"\\tag\{(\d+)\}", SOURCE)
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert re.findall(r'id="eq-(\d+)"', page) == numbers


def test_every_public_name_has_its_docstring_on_the_api_page(site: Path) -> None:
    import ddpm_ref

    page = (site / "api.html").read_text(encoding="utf-8")
    functions = [n for n in ddpm_ref.__all__ if n[0].islower() and callable(getattr(ddpm_ref, n))]
    missing = [n for n in functions if not re.search(rf'id="ddpm_ref\.[\w.]*\b{n}"', page)]
    assert not missing
    assert "<table" in page, "the notation is a table"


def test_every_law_is_on_its_page(site: Path) -> None:
    from ddpm_ref.conformance.lawbook import LAWS

    page = (site / "laws.html").read_text(encoding="utf-8")
    assert all(f"{name}:" in page for name in LAWS)


def test_a_docstring_keeps_its_formulas_and_tables() -> None:
    from docs.pages import readable

    lines = ["Text", "", "    a = b   (1)", "    c = d", "", "on.", "", "Args:", "    x: data.", ""]
    lines += ["| a | b |", "|---|---|", "| `1` | 2 |"]
    assert readable(lines) == [
        *("Text", "", "::", "", "    a = b   (1)", "    c = d", "", "", "on.", "", "Args:"),
        *("    x: data.", "", ".. list-table::", "   :header-rows: 1", ""),
        *("   * - a", "     - b", "   * - `1`", "     - 2", ""),
    ]
