r"""One unit of work, and the key that it is a pure function of.

    result = f(key),   key = (design, data name and content, arm, seed, kind, learning rate, precision,
                              device type, torch release, sources)                                        (1)

Equal keys give equal bits (but for the clock), whichever process or machine computes them. The *sources* are those of `ddpm_ref`,
`bench/metrics` and `bench/measure/study`, hashed; the table of designs is left out, because a design is in the key by its own entries.
Processor types are not in the key: kernels of torch may sum in another order on another processor, and the study says where a result was made
and sees to it that the arms of a seed come from one type (`processes`).
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from bench.data import without_path
from bench.measure.study.design import Arm, Design, plain

_ROOT = Path(__file__).parents[3]
_SOURCES = ("ddpm_ref", "bench/metrics", "bench/measure/study")
_LEFT_OUT = ("bench/measure/study/designs.py",)
_SUFFIXES = (".py", ".cpp", ".cu", ".h")


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Attributes:
        kind: `tune` (judge a learning rate) or `run` (a full run).
        arm: what is trained.
        seed: of everything random.
        rate: learning rate.
    """

    kind: Literal["tune", "run"]
    arm: Arm
    seed: int
    rate: float

    @property
    def label(self) -> str:
        """For progress and error messages."""
        what = "tuning " if self.kind == "tune" else ""
        return f"{what}{self.arm.name}, seed {self.seed}, rate {self.rate:g}"

    @property
    def stem(self) -> str:
        """The start of its file name in a store: the same for all keys of this task."""
        arm = "".join(c if c.isalnum() else "-" for c in self.arm.name)
        return f"{self.kind}-{arm}-seed{self.seed}-rate{self.rate:g}"


@dataclass(frozen=True)
class Setting:
    """Where and on what tasks are run; picklable.

    Attributes:
        design: the study.
        data: name of the data set.
        data_dir: its directory, or None.
        device: where to train.
        provider: of the noise.
        data_sha256: content of the data set, compared where a task runs; "" compares nothing.
        study: name of the study, by which claims find its record; "" for any other.
    """

    design: Design
    data: str
    data_dir: str | None = None
    device: str = "cpu"
    provider: str = "auto"
    data_sha256: str = ""
    study: str = ""


@lru_cache(maxsize=1)
def sources_hash() -> str:
    """SHA-256 over names and contents of the sources in eq. (1), hexadecimal."""
    total = hashlib.sha256()
    files = [file for folder in _SOURCES for file in sorted((_ROOT / folder).rglob("*"))]
    for file in files:
        name = file.relative_to(_ROOT).as_posix()
        if file.suffix in _SUFFIXES and name not in _LEFT_OUT:
            total.update(f"{name}\n".encode() + file.read_bytes())
    return total.hexdigest()


def ingredients(setting: Setting, task: Task) -> dict[str, Any]:
    """What eq. (1) is made of, JSON values only."""
    import torch

    design = setting.design
    return {
        "design": design.of_one_run(),
        "data": without_path(setting.data),
        "data_sha256": setting.data_sha256,
        "arm": {**plain(asdict(task.arm)), "rates": []},
        "variant": plain(design.variant_of(task.arm)),
        "seed": task.seed,
        "kind": task.kind,
        "rate": task.rate,
        "precision": design.training.get("precision", "float32"),
        "device": torch.device(setting.device).type,
        "torch": torch.__version__.partition("+")[0],
        "sources": sources_hash(),
    }


def digest(parts: dict[str, Any]) -> str:
    """The key (1) as hexadecimal text."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def key(setting: Setting, task: Task) -> str:
    """The key (1) of a task."""
    return digest(ingredients(setting, task))
