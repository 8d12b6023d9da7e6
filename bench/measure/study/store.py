"""Finished runs by their key: what was computed once is not computed again.

A store is a folder with one file for each finished task, `KIND-ARM-seedN-rateR-KEY.json`, holding the key's ingredients and the result.
Files appear whole, by renaming. A task whose file is there under another key is run again, and `stale` says why.
"""

import json
import secrets
from pathlib import Path
from typing import Any

from bench.measure.study.task import Setting, Task, digest, ingredients
from bench.terminal.files import write_text

Result = dict[str, Any]
_SALT = "salt"
_SHOWN = 16


class Store:
    """The folder of finished runs.

    Args:
        folder: made when it is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reused = 0
        """How many results were found."""
        self.stale: list[str] = []
        """Tasks that are there with another key, and in what it differs."""

    def salt(self) -> str:
        """A random text that stays in this folder: with it the names of hosts become hashes that nobody can look up."""
        path = self.folder / _SALT
        if not path.exists():
            self._write(path, secrets.token_hex(16))
        return path.read_text(encoding="ascii")

    def find(self, setting: Setting, task: Task) -> Result | None:
        """The result of a task, or None; a file that is damaged or belongs to another key counts as not there."""
        wanted = ingredients(setting, task)
        path = self._path(task, wanted)
        content = _read(path)
        if content is not None and content["key"] == wanted:
            self.reused += 1
            return dict(content["result"])
        if content is None and path.exists():
            self.stale.append(f"{task.label}: {path.name} is damaged")
        else:
            self._note_others(task, wanted)
        return None

    def keep(self, setting: Setting, task: Task, result: Result) -> None:
        """Write a finished result; one that failed or was stopped is not kept."""
        if "failed" in result or result.get("stopped"):
            return
        parts = ingredients(setting, task)
        text = json.dumps({"key": parts, "result": result}, allow_nan=False)
        self._write(self._path(task, parts), text)

    def recall(self, name: str) -> Result | None:
        """What was remembered under a name."""
        return _read(self.folder / name, needed=())

    def remember(self, name: str, content: Result) -> None:
        """Keep something small beside the runs."""
        self._write(self.folder / name, json.dumps(content, allow_nan=False))

    def _path(self, task: Task, parts: dict[str, Any]) -> Path:
        return self.folder / f"{task.stem}-{digest(parts)[:_SHOWN]}.json"

    def _write(self, path: Path, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)

    def _note_others(self, task: Task, wanted: dict[str, Any]) -> None:
        for path in sorted(self.folder.glob(f"{task.stem}-*.json")):
            content = _read(path)
            if content is None:
                continue
            found = content["key"]
            if found["data"] == wanted["data"]:  # another data set's run is not a stale one
                parts = [name for name in wanted if found.get(name) != wanted[name]]
                self.stale.append(f"{task.label}: another {', '.join(parts)}")


def _read(path: Path, needed: tuple[str, ...] = ("key", "result")) -> dict[str, Any] | None:
    """The content of a stored file; None where there is no file, or one that is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and set(needed) <= set(content) else None
