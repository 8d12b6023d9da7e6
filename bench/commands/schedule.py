"""`ddpm-bench schedule`: is my schedule right? Terminal SNR, L_T, precision, spacing, monotone weights.

`--json` writes strict JSON with the `schema` "ddpm-bench.schedule/1": the fields of `bench.measure.schedule.findings.examine`.
"""

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from bench.commands.output import check_picture
from bench.terminal.files import write_text
from bench.terminal.usage import UsageError, at_home, at_least, writable_directory, writable_file

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "ddpm-bench.schedule/1"

HELP = """is my schedule right: terminal SNR, L_T, precision, spacing, monotone weights

  ddpm-bench schedule linear
  ddpm-bench schedule scheduler_config.json --steps 50 --weighting min_snr --out schedule.png
  ddpm-bench schedule scaled_linear --data digits

a FILE.json is a scheduler_config.json of diffusers, or holds tables for t = 1 … T:
beta(s), alpha_bar (alphas_cumprod), log_snr, snr, sigmas; exit status 1 for an error in it, notes are 0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "schedule",
        metavar="NAME|FILE.json",
        help="linear, cosine, sigmoid, scaled_linear, or a file",
    )
    parser.add_argument("--T", type=at_least(1), help="steps of NAME (default: 1000)")
    parser.add_argument(
        "--zero-terminal-snr", action="store_true", help="NAME rescaled after Lin et al. 2024"
    )
    parser.add_argument(
        "--steps",
        type=at_least(1),
        nargs="+",
        default=[50],
        metavar="N",
        help="of a sampler (default: 50)",
    )
    parser.add_argument(
        "--weighting",
        nargs="+",
        metavar="NAME",
        help="is it monotone, and with which p_w (default: simple, simple_v)",
    )
    parser.add_argument(
        "--parameterization",
        choices=("eps", "x0", "v", "score"),
        help="what the network predicts (default: as the file says)",
    )
    parser.add_argument(
        "--data", metavar="NAME", help="for the bias of brightness and L_T of a data set"
    )
    parser.add_argument(
        "--images", metavar="PATH", help="a folder, FILE.npy or FILE.npz in place of --data"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are")
    parser.add_argument("--out", metavar="FILE.png", help="picture of SNR, densities and weights")
    parser.add_argument("--json", metavar="FILE", help="all figures; - for standard output (schema: ddpm-bench.schedule/1)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Examine, print, write; 1 where there is an error in the schedule."""
    from bench.measure.schedule.findings import examine
    from bench.measure.schedule.source import read
    from bench.report.schedule.text import as_text

    for option, path in (("--out", arguments.out), ("--json", arguments.json)):
        if path not in (None, "-"):
            writable_directory(at_home(path).parent, option)
            writable_file(path, option)
    if arguments.out is not None:
        check_picture(arguments.out, "--out")
    stated = read(arguments.schedule, arguments.T, arguments.zero_terminal_snr)
    T = len(next(iter(stated.tables.values())))
    if arguments.steps == [50]:
        arguments.steps = [min(50, T)]
    for n in arguments.steps:
        if n > T:
            raise UsageError(f"--steps {n}: the schedule has {T}; take as many or fewer")
    try:
        found = examine(
            stated,
            steps=arguments.steps,
            weightings=arguments.weighting or ["simple", "simple_v"],
            parameterization=arguments.parameterization,
            data=_images(arguments),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.json:
        _write(found, arguments.json)
    if arguments.json != "-":
        print(as_text(found))
    if arguments.out and "curves" in found:
        from bench.report.schedule.picture import draw

        draw(found, arguments.out)
    return int(any(each["level"] == "error" for each in found["findings"]))


def _images(arguments: argparse.Namespace) -> "Tensor | None":
    if arguments.images is not None:
        from bench.data.array_file import load_whole

        return load_whole(at_home(arguments.images)).heldout
    if arguments.data is None:
        return None
    from bench.data import load

    return load(arguments.data, at_home(arguments.data_dir) if arguments.data_dir else None).train


def _write(found: dict[str, Any], path: str) -> None:
    text = json.dumps(_strict({"schema": SCHEMA, **found}), indent=1, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)


def _strict(value: Any) -> Any:
    """Null for what is not finite: which table holds it is one of the findings."""
    if isinstance(value, dict):
        return {key: _strict(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(content) for content in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
