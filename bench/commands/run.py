"""`ddpm-bench run`: verify, measure, train and compare, write the report. The main job."""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands.subject import add_images
from bench.job.parts import PARTS
from bench.job.presets import PRESETS
from bench.terminal.usage import (
    UsageError,
    above_zero,
    alone_in,
    on_interrupt,
    one_of,
    writable_directory,
)

if TYPE_CHECKING:
    from bench.job.plan import Plan
    from bench.measure.study.designs import Study

_SIZES = "\n".join(f"  {name:<10}{preset.purpose}" for name, preset in PRESETS.items())
HELP = f"""Verify the mathematics, measure throughput, compare ε- with x₀-prediction, write a report.

  ddpm-bench run                                        open ddpm-bench-report/report.html
  ddpm-bench run --preset tiny --only verify --out checked
  ddpm-bench run --claims law-linear --out settled

presets:
{_SIZES}"""
_DEVICES = ("auto", "cpu", "cuda")
_PARTS = tuple(part.name for part in PARTS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset", type=one_of("preset", PRESETS), default="quick", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--data", metavar="NAME", help="data set, or folder:PATH (default: the preset's)"
    )
    add_images(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the files of the data set")
    parser.add_argument(
        "--out", metavar="DIR", default="ddpm-bench-report", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--provider", default="auto", help="of fused_q_sample; no influence on bits"
    )
    parser.add_argument("--device", type=one_of("device", _DEVICES), default="auto")
    parser.add_argument(
        "--claims",
        metavar="ID",
        nargs="+",
        help="only the studies that decide these claims (`ddpm-bench claims` lists them)",
    )
    parser.add_argument(
        "--features",
        metavar="NAME",
        nargs="+",
        help="feature maps of the Fréchet distance, the primary one first: pca64, effnet-lite0.7, torchvision:NAME, "
        "inception, inception:FILE (default: the study's)",
    )
    parser.add_argument(
        "--executor",
        metavar="SPEC",
        help="who trains: dask:tcp://HOST:8786, or PACKAGE.MODULE:MAKE, which runs that code (default: this machine)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        type=_shard,
        default=(1, 1),
        help="train every N-th seed, from the I-th; `report` puts the shards' records together",
    )
    parser.add_argument(
        "--limit",
        metavar="SECONDS",
        type=above_zero,
        help="stop a single training run after so long",
    )
    parser.add_argument(
        "--only",
        type=one_of("part", _PARTS),
        nargs="+",
        default=list(_PARTS),
        help=f"parts to do (default: all: {', '.join(_PARTS)})",
    )


def _shard(text: str) -> tuple[int, int]:
    index, separator, count = text.partition("/")
    if separator and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise argparse.ArgumentTypeError(f"{text!r}: write I/N with 1 ≤ I ≤ N, such as 2/5")


def run(arguments: argparse.Namespace) -> int:
    """Do the parts in turn; 0 all done, 1 a law failed or a part broke."""
    out = writable_directory(arguments.out)
    plan = _plan(arguments, out)

    from bench.job.plan import Progress, run_parts

    progress = Progress(plan)
    parts = [part for part in PARTS if part.name in arguments.only]
    with alone_in(out), on_interrupt(progress.finished):
        good = run_parts(parts, progress)
        written = _report(progress.files, out)
    print(f"report: {out / 'report.html'}")
    return 0 if good and written else 1


def _plan(arguments: argparse.Namespace, out: Path) -> "Plan":
    """Everything that can be wrong with the call is found here, before the first minute of work."""
    from bench.job.parts import check_study
    from bench.job.plan import Plan

    preset = PRESETS[arguments.preset]
    if arguments.claims:
        studies = _studies_of(arguments.claims)
        arguments.only = ["study"]
    else:
        studies = preset.rows(arguments.data)
    if arguments.features:
        studies = _with_features(studies, arguments.features)
    data = arguments.data or studies[0].data
    plan = Plan(
        preset=arguments.preset,
        settings=preset,
        studies=studies,
        data=data,
        data_dir=arguments.data_dir,
        device=_device(arguments.device),
        provider=_provider(arguments.provider),
        threads=os.cpu_count() or 1,
        command=_claims_command(arguments.claims)
        if arguments.claims
        else _command(arguments.preset, data),
        out=out,
        executor=arguments.executor,
        shard=arguments.shard,
        limit=arguments.limit,
    )
    if "study" in arguments.only:
        check_study(plan)
    return plan


def _with_features(studies: "tuple[Study, ...]", names: list[str]) -> "tuple[Study, ...]":
    """The studies of images with other feature maps."""
    from bench.metrics.features import feature

    for name in names:
        feature(name)
    return tuple(
        dataclasses.replace(row, design=dataclasses.replace(row.design, features=tuple(names)))
        if row.design.judge == "images"
        else row
        for row in studies
    )


def _studies_of(names: list[str]) -> "tuple[Study, ...]":
    """The studies that some claims need, each once."""
    from bench.measure.study.designs import study
    from bench.record.claims import claim

    rows = [claim(name) for name in names]
    for row in rows:
        if not row.cells:
            raise UsageError(f"claim {row.id!r} needs {row.needs}: {row.command}")
    return tuple(study(name) for name in dict.fromkeys(s for row in rows for s in row.studies))


def _claims_command(names: list[str]) -> str:
    return f"ddpm-bench run --claims {' '.join(names)}"


def _command(preset: str, data: str) -> str:
    """What reproduces the run; a user's own path stays out of it."""
    from bench.data import without_path

    return f"ddpm-bench run --preset {preset} --data {without_path(data)}"


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _provider(name: str) -> str:
    from bench.terminal.usage import unknown
    from ddpm_ref.kernels import q_sample_providers

    known = q_sample_providers()
    if name != "auto" and name not in known:
        raise unknown("provider", name, ["auto", *known])
    if name != "auto" and (reason := known[name]) is not None:
        raise UsageError(f"--provider {name} does not work here: {reason}; use --provider auto")
    return name


def _report(files: list[Path], out: Path) -> bool:
    """Write the report from the saved records; whether every section could be computed."""
    from bench.record import load
    from bench.report import build, write

    report = build([load(file) for file in files])
    write(report, out)
    for reason in report.broken:
        print(f"report: a part could not be computed: {reason}")
    return not report.broken
