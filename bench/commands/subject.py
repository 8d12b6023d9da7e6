"""Which model on which data: the options that `elbo`, `estimator` and `bound` share, and the question that they make."""

import argparse
import math
import os
from typing import TYPE_CHECKING

from bench.terminal.usage import UsageError, at_home, at_least, readable_file

if TYPE_CHECKING:
    from bench.data import DataSet
    from bench.metrics.bits_per_dim import Question
    from bench.metrics.foreign_model import Foreign
    from ddpm_ref.reverse import Variance
    from ddpm_ref.schedule import Schedule

_ARRAYS = (".npy", ".npz")


def checkpoint_file(text: str) -> str:
    """A checkpoint's file; of the folder of a run, the one in it."""
    path = at_home(text)
    return str(path / "checkpoint.pt") if os.path.isdir(path) else text


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The trained model as the first argument, of the commands that ask about one."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=checkpoint_file,
        metavar="CHECKPOINT",
        help="of `ddpm-bench train`, or the folder of its run",
    )


def add_subject(parser: argparse.ArgumentParser) -> None:
    """The options that say which model on which data, shared with `estimator` and `bound`."""
    parser.add_argument(
        "--model",
        metavar="FILE.py:FACTORY|hf:FOLDER",
        help="a model of your own instead, or a saved diffusers model",
    )
    parser.add_argument("--data", metavar="NAME", help="data set (default: the checkpoint's)")
    parser.add_argument(
        "--images",
        metavar="PATH",
        help="all images of a folder, FILE.npy or FILE.npz in place of --data",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the files of the data set are")
    add_download(parser)
    parser.add_argument("--part", choices=("heldout", "tune", "train"), default="heldout")
    parser.add_argument("--examples", type=at_least(1), metavar="N", help="the first N images only")
    parser.add_argument("--schedule", metavar="NAME", help="of --model (default: linear)")
    parser.add_argument("--T", type=at_least(1), help="steps of --schedule (default: 1000)")
    parser.add_argument(
        "--parameterization",
        metavar="NAME",
        help="what --model predicts (default: as its scheduler says, else eps)",
    )
    parser.add_argument(
        "--first-step",
        type=int,
        choices=(0, 1),
        help="what --model calls the first step (default: 0 for a model of diffusers, else 1)",
    )
    parser.add_argument(
        "--variance",
        metavar="NAME",
        help="posterior, beta or learned_range (default: as the scheduler says, else posterior)",
    )
    parser.add_argument(
        "--decoder-variance",
        choices=("beta", "posterior"),
        help="sigma_1^2 of p(x0|x1): beta_1 (default), or posterior for the posterior variance at t = 2, as Ho's and OpenAI's code",
    )
    parser.add_argument(
        "--decoder", metavar="NAME", help="default: discretized if the data have levels"
    )
    parser.add_argument(
        "--clip",
        type=_clip,
        metavar="X",
        help="clamp predicted x0 to [-X, X], or never (default: as the scheduler says, else never)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--batch-size", type=at_least(1), default=512)
    parser.add_argument("--device", default="cpu")


def add_images(parser: argparse.ArgumentParser) -> None:
    """`--images PATH` of the commands that train: another way to write `--data folder:PATH` or `array:PATH`."""
    parser.add_argument(
        "--images",
        dest="data",
        type=_data_name,
        metavar="PATH",
        help="your own images in place of --data: a folder, FILE.npy or FILE.npz",
    )


def _data_name(path: str) -> str:
    return f"{'array' if path.lower().endswith(_ARRAYS) else 'folder'}:{path}"


def _clip(text: str) -> float:
    """A number, or infinity for `never`."""
    if text == "never":
        return math.inf
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number nor 'never': pass --clip 1 to clamp to [-1, 1]"
        ) from None


def add_download(parser: argparse.ArgumentParser) -> None:
    """`--download`, wherever a data set is named."""
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch mnist, fashion-mnist or cifar10 where it is missing, to --data-dir or ./data",
    )


def data_from(arguments: argparse.Namespace, name: str) -> "DataSet":
    """The data set `name` with the options --data-dir and --download."""
    from bench.data import load
    from bench.job.together import processes

    if arguments.download and processes() > 1:
        raise UsageError(
            "--download with several processes: they would write the same files; fetch the data with one process first"
        )
    root = at_home(arguments.data_dir) if arguments.data_dir else None
    return load(name, root, download=arguments.download)


def subject_of(arguments: argparse.Namespace) -> str:
    """What tells one model from another in a table, a user's own paths left out."""
    if arguments.model:
        return "a model of your own"
    from ddpm_ref.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(arguments.checkpoint, device="cpu")
    config = checkpoint.config
    size = sum(values.numel() for values in checkpoint.model.parameters())
    return f"{config.parameterization}/{config.weighting}, {config.schedule}, {config.network} of {size} parameters"


def question_from(arguments: argparse.Namespace) -> "Question":
    """Everything that `elbo` needs, from the checkpoint or the factory and the options."""
    from bench.metrics.bits_per_dim import Question, Reading
    from bench.metrics.foreign_model import adapt
    from ddpm_ref.team import Team

    if (arguments.checkpoint is None) == (arguments.model is None):
        raise UsageError(
            "give either CHECKPOINT or --model (FILE.py:FACTORY or hf:FOLDER), one of the two"
        )
    _check_device(arguments.device)
    foreign, own_data = (
        _from_checkpoint(arguments) if arguments.checkpoint else (_from_factory(arguments), None)
    )
    dataset = _data(arguments, own_data)
    images = getattr(dataset, arguments.part)[: arguments.examples]
    schedule = _schedule(arguments, foreign.schedule)
    kind = arguments.variance or foreign.variance or "posterior"
    clip = foreign.clip if arguments.clip is None else arguments.clip
    return Question(
        model=Team.present().sharing(adapt(foreign, schedule, kind)),
        data=images.to(arguments.device),
        source=dataset.describe(),
        schedule=schedule,
        parameterization=arguments.parameterization or foreign.parameterization or "eps",
        variance=_variance(kind, arguments.decoder_variance, schedule),
        decoder=arguments.decoder or dataset.decoder,
        levels=dataset.levels,
        clip=None if clip == math.inf else clip,
        seed=arguments.seed,
        draws=getattr(arguments, "draws", 1),
        batch_size=arguments.batch_size,
        reading=Reading(
            first_step=foreign.offset + 1,
            decoder_variance=arguments.decoder_variance or "beta",
            variance=kind,
            said=foreign.said,
        ),
    )


def _data(arguments: argparse.Namespace, own: str | None) -> "DataSet":
    """The data set of --data, of --images, or the one that the checkpoint was trained on."""
    if arguments.images is not None:
        from bench.data.array_file import load_whole

        for option in ("data", "data_dir"):
            if getattr(arguments, option) is not None:
                given = option.replace("_", "-")
                raise UsageError(f"--images and --{given}: give one of the two")
        if arguments.part != "heldout":
            raise UsageError(
                f"--part {arguments.part} belongs to --data: --images is evaluated whole; leave it out"
            )
        return load_whole(at_home(arguments.images))
    name: str | None = arguments.data or own
    if name is None:
        raise UsageError(
            "--data is missing: name the data set, such as --data digits, or give your own as --images FOLDER"
        )
    return data_from(arguments, name)


def _variance(kind: str, decoder: str | None, schedule: "Schedule") -> "Variance":
    """The reverse variance as `elbo` takes it: a name, or its table with β̃_2 as the decoder's."""
    from ddpm_ref.reverse import reverse_variance

    if kind == "learned_range":
        if decoder is not None:
            raise UsageError(
                f"--decoder-variance {decoder} belongs to a fixed variance: with learned_range the model's own is the decoder's"
            )
        return "posterior"
    if decoder != "posterior":
        return kind
    if schedule.T == 1:
        raise UsageError(
            "--decoder-variance posterior is the posterior variance at t = 2, but T = 1"
        )
    try:
        table = reverse_variance(kind, schedule)
    except ValueError as error:
        raise UsageError(str(error)) from error
    table[1] = schedule.posterior_variance[2]
    return table


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


def _from_checkpoint(arguments: argparse.Namespace) -> "tuple[Foreign, str]":
    """Our own model as a foreign one, and the name of its data."""
    from bench.metrics.foreign_model import Foreign
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
    try:
        model = checkpoint.model
    except ValueError as error:
        raise UsageError(f"{arguments.checkpoint}: {error}") from error
    foreign = Foreign(
        model,
        checkpoint.schedule,
        parameterization=checkpoint.config.parameterization,
        first_step=1,
    )
    return foreign, checkpoint.config.data


def _from_factory(arguments: argparse.Namespace) -> "Foreign":
    import dataclasses

    from torch import nn

    from bench.metrics.foreign_model import load_foreign

    foreign = load_foreign(arguments.model)
    if arguments.first_step is not None:
        foreign = dataclasses.replace(foreign, first_step=arguments.first_step)
    if isinstance(foreign.model, nn.Module):
        foreign.model.to(arguments.device)
    return foreign


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
