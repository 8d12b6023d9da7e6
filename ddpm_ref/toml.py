"""TOML that a configuration is written in and read from: flat values, then one table of options for each name that has some."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

_TOML_HINT = "write KEY = VALUE, text in quotes, tables as [weighting_options]"


def to_toml(entries: Mapping[str, Any]) -> str:
    """Names and values as TOML; dicts become tables at the end, empty ones are left out."""
    tables = {name: value for name, value in entries.items() if isinstance(value, dict)}
    lines = [f"{name} = {_literal(entries[name])}" for name in entries if name not in tables]
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]"]
            lines += [f"{_key(key)} = {_literal(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def parse_toml(text: str) -> dict[str, Any]:
    """The table that `text` holds.

    Raises:
        ValueError: not TOML; the message has the number of the line, the line and the cause.
        TypeError: not a str.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"a configuration is a {type(text).__name__}; pass its text as a str: path.read_text()"
        )
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(
            f"this is not TOML that can be read: it is nested too deeply; {_TOML_HINT}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"this is not TOML: {_pointed(text, str(error))}; {_TOML_HINT}") from error


def _pointed(text: str, cause: str) -> str:
    """What the parser says with the line that it means, which it calls the end of the document for the last."""
    lines = text.rstrip().splitlines() or [""]
    found = re.search(r"at line (\d+)", cause)
    number = min(int(found[1]), len(lines)) if found else len(lines)
    where = cause if found else f"{cause.removesuffix('(at end of document)')}(at line {number})"
    return f"{where}: {lines[number - 1].strip()!r}"


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else _literal(name)


def _literal(value: object) -> str:
    """One value in TOML. JSON strings are TOML strings, except for an unescaped DEL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return repr(value)
