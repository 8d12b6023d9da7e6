"""Section "Environment": what the records were measured on, one column per different environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.record import Record
from bench.record.environment import commit_label
from bench.report.page.blocks import Block, Note, Section, Table

Environment = Mapping[str, Any]


def section(records: Sequence[Record]) -> Section:
    """Machines, versions, threads and commits of all records."""
    columns = _distinct(records)
    names = [f"{', '.join(kinds)}" for kinds, _ in columns]
    rows = [
        [label, *(read(environment) for _, environment in columns)] for label, read in _ROWS.items()
    ]
    rows += [[name, *(_version(e, name) for _, e in columns)] for name in _packages(columns)]
    blocks: list[Block] = [Table(["", *names], rows, "Column headings are the kinds of record.")]
    if any(environment.get("dirty") for _, environment in columns):
        blocks.append(Note("A commit with + had uncommitted changes when it was measured.", "warn"))
    return Section("Environment", blocks, data=_data(columns))


def _distinct(records: Sequence[Record]) -> list[tuple[list[str], Environment]]:
    """Environments without repetition, each with the kinds of record that were measured in it."""
    found: list[tuple[list[str], Environment]] = []
    for record in records:
        kinds = next((kinds for kinds, seen in found if seen == record.environment), None)
        if kinds is None:
            found.append(([record.kind], record.environment))
        elif record.kind not in kinds:
            kinds.append(record.kind)
    return found


def _data(columns: Sequence[tuple[list[str], Environment]]) -> dict[str, Any]:
    return {"environments": [{"kinds": kinds, **environment} for kinds, environment in columns]}


def _packages(columns: Sequence[tuple[list[str], Environment]]) -> list[str]:
    """Packages that are installed in at least one environment, in the order of the records."""
    names = dict.fromkeys(name for _, e in columns for name in e.get("packages", {}))
    return [name for name in names if any(e.get("packages", {}).get(name) for _, e in columns)]


def _version(environment: Environment, name: str) -> str:
    return environment.get("packages", {}).get(name) or "–"


def _processor(environment: Environment) -> str:
    machine = environment.get("machine", {})
    flags = [flag for flag in machine.get("flags", ()) if flag in ("avx2", "avx512f", "sve")]
    return ", ".join([machine.get("cpu", "–"), *flags])


def _cores(environment: Environment) -> str:
    machine = environment.get("machine", {})
    memory = machine.get("memory_gib")
    return f"{machine.get('cores', '–')} cores{f', {memory} GiB' if memory else ''}"


def _accelerator(environment: Environment) -> str:
    found = environment.get("accelerator")
    return f"{found['name']}, {found['memory_gib']} GiB, CUDA {found['cuda']}" if found else "none"


def _threads(environment: Environment) -> str:
    threads = {k: v for k, v in environment.get("threads", {}).items() if v is not None}
    return ", ".join(f"{name} {count}" for name, count in threads.items()) or "–"


_ROWS: dict[str, Callable[[Environment], str]] = {
    "Processor": _processor,
    "Cores, memory": _cores,
    "Accelerator": _accelerator,
    "System": lambda e: e.get("os") or "–",
    "Compiler": lambda e: e.get("compiler") or "none",
    "Threads": _threads,
    "Commit": commit_label,
    "Python": lambda e: e.get("python") or "–",
}
