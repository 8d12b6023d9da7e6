"""Title and subtitle of a report: which question its records can answer, and where they are from."""

from collections.abc import Iterable, Sequence

from bench.record import Record
from bench.record.environment import commit_label, machine_label

_TITLES = {
    "study": "Should a diffusion model predict the noise or the image?",
    "verify": "Is the diffusion mathematics right?",
    "throughput": "How fast can a batch be noised?",
    "throughput-contest": "How fast can a batch be noised?",
    "gpu-visit": "How fast can a batch be noised?",
    "training-contest": "How fast does a training loop run?",
    "bound": "What does the variational bound cost?",
    "estimator": "What does a bits/dim figure cost?",
    "capacity": "What does a bottleneck cost?",
    "optimal-loss": "How small can the loss be?",
    "loss": "How small is the loss?",
    "mutation": "Would the tests notice?",
}
"""Kind of record → the question that it answers; the first kind that is present gives the title."""


def title(records: Sequence[Record]) -> str:
    """The question of the first kind in `_TITLES` that is present."""
    return _TITLES.get(_main_kind(records), "Diffusion objectives")


def _main_kind(records: Sequence[Record]) -> str:
    kinds = {record.kind for record in records}
    return next((kind for kind in _TITLES if kind in kinds), "")


def subtitle(records: Sequence[Record]) -> str:
    """Data of the records that answer the title's question, machine, commit and dates of all measurements."""
    if not records:
        return "No records."
    kind = _main_kind(records)
    days = sorted({record.created[:10] for record in records})
    period = days[0] if len(days) == 1 else f"{days[0]} … {days[-1]}"
    parts = [
        *_distinct(
            r.data["name"] for r in records if r.kind == kind and r.data and "name" in r.data
        ),
        *_distinct(machine_label(r.environment) for r in records),
        _commits(records),
        f"measured {period}",
    ]
    return " · ".join(parts)


def _commits(records: Sequence[Record]) -> str:
    """The commit, or how many: the environment's section names them."""
    labels = _distinct(commit_label(r.environment) for r in records)
    return f"commit {labels[0]}" if len(labels) == 1 else f"{len(labels)} commits"


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))
