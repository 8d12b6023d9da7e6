"""Pictures of the first screens of committed reports, by a headless Chromium: `python -m docs.pictures reports/quick …`.

The picture is what a reader sees at 1280 × 860 pixels, light; it lies beside the report as report.png.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
"""Options with which Chromium asks nobody anything."""
SIZE = (1280, 860)


def chromium() -> str | None:
    """The browser's path, None where there is none."""
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


def picture(page: Path, out: Path, size: tuple[int, int] = SIZE, *options: str) -> None:
    """The page's first screen as a PNG.

    Raises:
        RuntimeError: there is no Chromium, or it wrote nothing.
    """
    browser = chromium()
    if browser is None:
        raise RuntimeError("no Chromium on the PATH: install it, or leave the picture as it is")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *QUIET, *options, f"--user-data-dir={profile}"]
        command += [
            f"--window-size={size[0]},{size[1]}",
            f"--screenshot={out}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if not out.is_file():
        raise RuntimeError(f"Chromium wrote no picture: {done.stderr[-300:]}")


def main(folders: Sequence[str]) -> int:
    """One picture per folder."""
    for folder in folders:
        picture(Path(folder) / "report.html", Path(folder) / "report.png")
        print(Path(folder) / "report.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
