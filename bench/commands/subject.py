"""Which model on which data: the options that `elbo`, `estimator` and `bound` share, and the question that they make."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.terminal.usage import UsageError, at_least, readable_file

if TYPE_CHECKING:
    from bench.metrics.bits_per_dim import Question
    from ddpm_ref.schedule import Schedule


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
