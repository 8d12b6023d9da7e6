"""Records → report.html, report.md, report.json and the figures: a pure function, three renderers.

    write(build(records), directory)

Each part of the page is a module here with `section(records) -> Section | None`
(`bench.report.page.document.PARTS`), made of the blocks in `bench.report.page.blocks`.
"""

import os
from pathlib import Path

from bench.record import write_text
from bench.report.page.document import Report, build

__all__ = ["Report", "build", "render", "write"]


def render(report: Report) -> dict[str, str]:
    """Relative path → text of every file of the report."""
    from bench.report.page import figures, html, json, markdown

    return {
        "report.html": html.render(report),
        "report.md": markdown.render(report),
        "report.json": json.render(report),
        **{f"figures/{name}.svg": figures.standalone(svg) for name, svg in _wide(report)},
    }


def _wide(report: Report) -> list[tuple[str, str]]:
    """The drawings without those for phones, which the page alone can choose."""
    return [(n, svg) for n, svg in report.drawings.items() if not n.endswith("-narrow")]


def write(report: Report, directory: str | os.PathLike[str]) -> list[Path]:
    """Write every file of the report below `directory` and return their paths, HTML first."""
    paths = []
    for name, text in render(report).items():
        path = Path(directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        paths.append(path)
    return paths
