"""What was found so far, line by line: a count that takes an hour can be stopped, and goes on where it was.

Every line carries a stamp, the hash of the laws and of the right implementation that it was found with; lines of other laws are passed over.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import ddpm_ref.conformance
from tests.independent.measure import Baseline, Found

_HERE = Path(__file__).parent


def stamp() -> str:
    """Hash of every source that a result depends on, the defects apart."""
    laws = Path(ddpm_ref.conformance.__file__).parent
    sources = [p for p in laws.rglob("*.py") if "adapters" not in p.parts]
    digest = hashlib.sha256()
    for path in sorted([*sources, *_HERE.glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Notes:
    """A file of lines, read once and appended to; without a file, nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._stamp = path, stamp()
        self.baseline: Baseline | None = None
        self.found: dict[str, Found] = {}
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        for line in map(json.loads, lines):
            if line["stamp"] == self._stamp:
                self._read(line)

    def _read(self, line: dict) -> None:
        if "baseline" in line:
            given = line["baseline"]
            sets = (
                {k: frozenset(v) for k, v in given[key].items()} for key in ("reached", "about")
            )
            self.baseline = Baseline(*sets, given["seconds"])
            return
        row = line["row"]
        self.found[line["name"]] = Found(
            **{**row, "cause": tuple(row["cause"]), "classes": tuple(row["classes"])}
        )

    def _write(self, line: dict) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"stamp": self._stamp, **line}) + "\n")

    def keep_baseline(self, known: Baseline) -> Baseline:
        """Write it down."""
        sets = {
            key: {k: sorted(v) for k, v in getattr(known, key).items()}
            for key in ("reached", "about")
        }
        self._write({"baseline": {**sets, "seconds": known.seconds}})
        return known

    def keep(self, name: str, row: Found) -> Found:
        """Write it down."""
        self._write({"name": name, "row": asdict(row)})
        return row
