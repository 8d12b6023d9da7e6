"""`ddpm-bench elbo`: bits/dim of our checkpoint or of anybody's model, term by term.

`--json` writes strict JSON with the `schema` "ddpm-bench.elbo/1". Its fields: `bits_per_dim` with `bits_per_dim_stderr`,
`stderr_meaning` and `stderr_degrees_of_freedom` (for Student's t); `terms_nats` (`prior`, `diffusion`, `reconstruction`, `total`;
each `mean` and `stderr`, nats per example); `curve_nats` (the term of t = 1 … T) with `curve_is_smoothed`; `dims`, `examples`,
`evaluations`; `protocol`. A standard error of 0 is that of an exact mean; it is null, unknown, for the full sum over one image.
Where the bound is not finite there are only `schema`, `bits_per_dim`: null and the `reason`.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.terminal.usage import (
    UsageError,
    at_least,
    readable_file,
    writable_directory,
    writable_file,
)

if TYPE_CHECKING:
    from bench.metrics.bits_per_dim import Likelihood, Question
    from ddpm_ref.schedule import Schedule

SCHEMA = "ddpm-bench.elbo/1"

HELP = """bits/dim of a checkpoint or of your model, term by term, with standard errors

  ddpm-bench elbo runs/digits/checkpoint.pt --data digits
  ddpm-bench elbo --model my_model.py:make --data digits --schedule linear --T 1000
  ddpm-bench elbo runs/digits/checkpoint.pt --evaluations 20000 --json bound.json --out bound.png

the factory returns a model, (model, Schedule) or (model, diffusers scheduler); see bench/metrics/foreign_model.py"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="of `ddpm-bench train`")
    add_subject(parser)
    spent = parser.add_mutually_exclusive_group()
    spent.add_argument(
        "--evaluations",
        type=at_least(32),
        metavar="N",
        help="budget of network evaluations (default: 16 for each image, at least 4000)",
    )
    spent.add_argument("--full", action="store_true", help="every t of every image instead")
    parser.add_argument("--draws", type=at_least(1), default=1, help="noise draws with --full")
    parser.add_argument("--out", metavar="FILE.png", help="picture of L_t over t")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="all figures; - for standard output (schema: ddpm-bench.elbo/1)",
    )


def add_subject(parser: argparse.ArgumentParser) -> None:
    """The options that say which model on which data, shared with `estimator` and `bound`."""
    parser.add_argument("--model", metavar="FILE.py:FACTORY", help="a model of your own instead")
    parser.add_argument("--data", metavar="NAME", help="data set (default: the checkpoint's)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are")
    parser.add_argument("--part", choices=("heldout", "tune", "train"), default="heldout")
    parser.add_argument("--examples", type=at_least(1), metavar="N", help="the first N images only")
    parser.add_argument("--schedule", metavar="NAME", help="of --model (default: linear)")
    parser.add_argument("--T", type=at_least(1), help="steps of --schedule (default: 1000)")
    parser.add_argument(
        "--parameterization", metavar="NAME", help="what --model predicts (default: eps)"
    )
    parser.add_argument(
        "--first-step",
        type=int,
        choices=(0, 1),
        help="what --model calls the first step (default: 1)",
    )
    parser.add_argument(
        "--variance", metavar="NAME", help="posterior (default), beta or learned_range"
    )
    parser.add_argument(
        "--decoder", metavar="NAME", help="default: discretized if the data have levels"
    )
    parser.add_argument(
        "--clip", type=float, metavar="X", help="clamp predicted x0 (default: never)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--batch-size", type=at_least(1), default=512)
    parser.add_argument("--device", default="cpu")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; 1 where the bound is not finite."""
    import math

    from bench.metrics.bits_per_dim import as_text, draw_curve

    if arguments.draws != 1 and not arguments.full:
        raise UsageError(
            f"--draws {arguments.draws} belongs to --full: a budget chooses its own draws; add --full or leave it out"
        )
    for option, path in (("--out", arguments.out), ("--json", arguments.json)):
        if path not in (None, "-"):
            writable_directory(Path(path).expanduser().parent, option)
            writable_file(path, option)
    if arguments.out is not None:
        _check_picture(arguments.out)
    # With `--json -` only the JSON goes to standard output, whatever a user's factory or model prints.
    with redirect_stdout(sys.stderr if arguments.json == "-" else sys.stdout):
        found = _measured(arguments)
    good = math.isfinite(found.terms["total"].nats)
    if arguments.json:
        _write_json(
            found.as_json() if good else {"bits_per_dim": None, "reason": "not finite"},
            arguments.json,
        )
    if arguments.json != "-":
        print(as_text(found))
    if arguments.out and good:
        draw_curve(found, arguments.out)
    if not good:
        print("the bound is not finite: the model returned NaN or infinity", file=sys.stderr)
    return 0 if good else 1


def _measured(arguments: argparse.Namespace) -> "Likelihood":
    """The bound by the full sum or by a budget."""
    from bench.metrics.bits_per_dim import by_budget, by_full_sum

    question = question_from(arguments)
    budget = arguments.evaluations or max(4000, 16 * len(question.data))
    try:
        return by_full_sum(question) if arguments.full else by_budget(question, budget)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _check_picture(path: str) -> None:
    """The ending names a kind of picture; none means PNG."""
    from matplotlib.backend_bases import FigureCanvasBase

    ending = Path(path).suffix.removeprefix(".").lower()
    if ending and ending not in FigureCanvasBase.get_supported_filetypes():
        raise UsageError(f"--out {path}: {ending!r} is no kind of picture; end it in .png or .svg")


def question_from(arguments: argparse.Namespace) -> "Question":
    """Everything that `elbo` needs, from the checkpoint or the factory and the options."""
    from bench.data import load
    from bench.metrics.bits_per_dim import Question

    if (arguments.checkpoint is None) == (arguments.model is None):
        raise UsageError("give either CHECKPOINT or --model FILE.py:FACTORY, one of the two")
    _check_device(arguments.device)
    chosen = _from_checkpoint(arguments) if arguments.checkpoint else _from_factory(arguments)
    name = arguments.data or chosen.pop("data", None)
    chosen.pop("data", None)
    if name is None:
        raise UsageError("--data is missing: name the data set, such as --data digits")
    dataset = load(name, Path(arguments.data_dir) if arguments.data_dir else None)
    images = getattr(dataset, arguments.part)[: arguments.examples]
    decoder = arguments.decoder or dataset.decoder
    return Question(
        data=images.to(arguments.device),
        source=dataset.describe(),
        decoder=decoder,
        levels=dataset.levels,
        clip=arguments.clip,
        seed=arguments.seed,
        draws=getattr(arguments, "draws", 1),
        batch_size=arguments.batch_size,
        **chosen,
    )


def _check_device(name: str) -> None:
    """A number can be made on the device and read from it."""
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = str(error).splitlines()[0]
        raise UsageError(
            f"--device {name}: not usable here ({cause}); pass cpu, or cuda on a machine with a GPU"
        ) from error


def _from_checkpoint(arguments: argparse.Namespace) -> dict[str, Any]:
    from ddpm_ref.checkpoint import load_checkpoint

    for option in ("schedule", "T", "parameterization", "first_step"):
        if getattr(arguments, option) is not None:
            name = option.replace("_", "-")
            raise UsageError(
                f"--{name} belongs to --model: a checkpoint knows its own; leave it out"
            )
    try:
        checkpoint = load_checkpoint(readable_file(arguments.checkpoint), device=arguments.device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return {
        "model": checkpoint.model,
        "schedule": checkpoint.schedule,
        "parameterization": checkpoint.config.parameterization,
        "variance": arguments.variance or "posterior",
        "data": checkpoint.config.data,
    }


def _from_factory(arguments: argparse.Namespace) -> dict[str, Any]:
    import dataclasses

    from torch import nn

    from bench.metrics.foreign_model import adapt, load_foreign

    foreign = load_foreign(arguments.model)
    if arguments.first_step is not None:
        foreign = dataclasses.replace(foreign, first_step=arguments.first_step)
    if isinstance(foreign.model, nn.Module):
        foreign.model.to(arguments.device)
    schedule = _schedule(arguments, foreign.schedule)
    variance = arguments.variance or foreign.variance or "posterior"
    return {
        "model": adapt(foreign, schedule, variance),
        "schedule": schedule,
        "parameterization": arguments.parameterization or foreign.parameterization or "eps",
        "variance": "posterior" if variance == "learned_range" else variance,
    }


def _schedule(arguments: argparse.Namespace, own: "Schedule | None") -> "Schedule":
    """The schedule that the factory returned with its model, or that of the command line: never one in place of the other."""
    from bench.terminal.usage import unknown
    from ddpm_ref.schedule import SCHEDULES

    if own is not None:
        for option in ("schedule", "T"):
            if getattr(arguments, option) is not None:
                raise UsageError(
                    f"--{option} {getattr(arguments, option)}: --model brings its own schedule, {own!r}; "
                    "leave the option out, or let the factory return the model alone"
                )
        return own
    name = arguments.schedule or "linear"
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    return SCHEDULES[name](arguments.T or 1000)


def _write_json(values: dict[str, Any], path: str) -> None:
    text = json.dumps({"schema": SCHEMA, **values}, indent=1, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        Path(path).expanduser().write_text(text, encoding="utf-8")
