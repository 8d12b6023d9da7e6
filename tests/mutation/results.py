"""The record of a mutation campaign: kind `mutation`."""

from collections import Counter
from collections.abc import Sequence

from bench.record import Json, Record, new_record
from bench.report.mutation import KIND
from tests.mutation.campaign import Result, score
from tests.mutation.seeded import Seeded


def record(
    results: Sequence[Result],
    seeded: Sequence[Seeded],
    *,
    seed: int,
    population: int,
    parts: Sequence[str],
) -> Record:
    """What was drawn, what survived, and what the laws did with the seeded defects."""
    protocol: dict[str, Json] = {
        "command": f"python -m tests.mutation --sample {len(results)} --seed {seed}",
        "modules": list(parts),
        "population": population,
        "rule": "first failing test ends a mutant; a mutant that does not end counts as killed",
    }
    return new_record(KIND, protocol=protocol, seeds=(seed,), results=_results(results, seeded))


def _results(results: Sequence[Result], seeded: Sequence[Seeded]) -> dict[str, Json]:
    killed, counted = score(results)
    survivors = [result for result in results if not result.killed]
    return {
        "sample": len(results),
        "killed": killed,
        "counted": counted,
        "timeouts": sum(result.verdict.status == "timeout" for result in results),
        "by_module": _shares(results, [result.mutation.path for result in results]),
        "by_kind": _shares(results, [result.mutation.kind for result in results]),
        "killers": [
            {"tests": name, "killed": count}
            for name, count in Counter(
                _file(result) for result in results if result.killed
            ).most_common()
        ],
        "survivors": [_survivor(result) for result in survivors if not result.reason],
        "equivalent": [_survivor(result) for result in survivors if result.reason],
        "seeded": {
            "count": len(seeded),
            "rejected": sum(not row.missed for row in seeded),
            "seen_elsewhere": sum(bool(row.origin) for row in seeded),
            "missed": [
                {"name": row.name, "laws": list(row.missed)} for row in seeded if row.missed
            ],
            "rows": [
                {"name": row.name, "says": row.says, "origin": row.origin, "laws": list(row.causes)}
                for row in seeded
            ],
        },
    }


def _file(result: Result) -> str:
    return result.verdict.killer.partition("::")[0].partition(" ")[0] or result.verdict.status


def _shares(results: Sequence[Result], labels: Sequence[str]) -> list[Json]:
    """(label, killed, counted, equivalent) in the order of first appearance."""
    rows: list[Json] = []
    for label in dict.fromkeys(labels):
        mine = [r for r, name in zip(results, labels, strict=True) if name == label]
        killed, counted = score(mine)
        rows.append(
            {"name": label, "killed": killed, "counted": counted, "equivalent": len(mine) - counted}
        )
    return rows


def _survivor(result: Result) -> dict[str, Json]:
    mutation = result.mutation
    return {
        "place": f"{mutation.path}:{mutation.line}",
        "kind": mutation.kind,
        "before": mutation.before,
        "after": mutation.after,
        "reason": result.reason,
    }
