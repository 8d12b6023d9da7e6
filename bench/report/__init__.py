"""Records → report.html, report.md, report.json and the figures: a pure function, three renderers.

    write(build(records), directory)

Each part of the page is a module here with `section(records) -> Section | None`
(`bench.report.document.PARTS`), made of the blocks in `bench.report.blocks`.
"""

import os
from pathlib import Path

from bench.report.document import Report, build

__all__ = ["Report", "build", "render", "write"]


def render(report: Report) -> dict[str, str]:
    """Relative path → text of every file of the report."""
    from bench.report import figures, html, json, markdown

    drawings = {f"figures/{f.name}.svg": figures.standalone(f) for f in markdown.figures(report)}
    return {
        "report.html": html.render(report),
        "report.md": markdown.render(report),
        "report.json": json.render(report),
        **drawings,
    }


def write(report: Report, directory: str | os.PathLike[str]) -> list[Path]:
    """Write every file of the report below `directory` and return their paths, HTML first."""
    paths = []
    for name, text in render(report).items():
        path = Path(directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        paths.append(path)
    return paths
