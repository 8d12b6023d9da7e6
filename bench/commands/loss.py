"""`ddpm-bench loss`: a validation loss with an interval, of one model or paired between two."""

import argparse
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from bench.commands.output import add_outputs, check_outputs, deliver
from bench.commands.subject import add_subject, checkpoint_file, question_from, subject_of
from bench.terminal.usage import UsageError, at_least, readable_file, unknown

if TYPE_CHECKING:
    from bench.record import Record
    from ddpm_ref.objective import Weighting

HELP = """a validation loss with its 95 % interval, of one model or paired between two

  ddpm-bench loss runs/a/checkpoint.pt --data digits --weighting simple
  ddpm-bench loss runs/a/checkpoint.pt runs/b/checkpoint.pt --weighting min_snr:5 --evaluations 20000
  ddpm-bench loss runs/a/checkpoint.pt --model my_model.py:make --data digits

two models are asked about the same examples, steps and noise: their difference is far sharper than either loss"""

_NUMBERS = {"min_snr": 1, "p2": 2}
"""How many follow the name of a weighting."""
_OF_THE_MODEL = ("schedule", "T", "parameterization", "first_step")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument(
        "checkpoints",
        nargs="*",
        type=checkpoint_file,
        metavar="CHECKPOINT",
        help="of `ddpm-bench train`, or the folders of their runs; up to two",
    )
    add_subject(parser)
    parser.add_argument(
        "--weighting",
        default="simple",
        metavar="NAME",
        help="a name of `ddpm-bench weights`, min_snr:GAMMA or p2:K,GAMMA (default: simple)",
    )
    parser.add_argument(
        "--evaluations",
        type=at_least(8),
        metavar="N",
        help="budget of each model (default: 16 for each image, at least 4000)",
    )
    add_outputs(parser, picture=False)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; 1 where a loss is not finite."""
    from bench.job.together import is_chief, together
    from bench.report.losses import loss_text

    check_outputs(arguments)
    weighting = _weighting_of(arguments.weighting)
    # With `--json -` only the JSON goes to standard output, whatever a user's factory or model prints.
    with (
        redirect_stdout(sys.stderr if arguments.json == "-" else sys.stdout),
        together(arguments.device) as arguments.device,
    ):
        record = _measured(arguments, weighting)
    if is_chief():
        deliver(arguments, record, loss_text(record.results))
    return int(any(row["value"] is None for row in record.results["losses"]))


def _measured(arguments: argparse.Namespace, weighting: "Weighting") -> "Record":
    from bench.measure.loss.validation import loss_record

    chosen = _subjects(arguments)
    questions = [question_from(one) for one in chosen]
    evaluations = arguments.evaluations or max(4000, 16 * len(questions[0].data))
    subjects = [subject_of(one) for one in chosen]
    words = ["ddpm-bench loss", *(f"{letter}.pt" for letter in "AB"[: len(arguments.checkpoints)])]
    words += ["--model FILE.py:FACTORY"] if arguments.model else []
    words += [f"--data {questions[0].source['name']} --part {arguments.part}"]
    words += [f"--weighting {arguments.weighting} --evaluations {evaluations}"]
    words += [f"--seed {arguments.seed}"]
    return loss_record(
        questions,
        subjects,
        weighting=weighting,
        evaluations=evaluations,
        command=" ".join(words),
    )


def _subjects(arguments: argparse.Namespace) -> list[argparse.Namespace]:
    """The options of each model by itself: the same data; what belongs to --model does not reach a checkpoint.

    Raises:
        UsageError: none, or more than two.
    """
    given = {**vars(arguments), "data": _data_name(arguments)}
    silent = dict.fromkeys(_OF_THE_MODEL) if arguments.model else {}
    found = [
        argparse.Namespace(**{**given, **silent, "checkpoint": path, "model": None})
        for path in arguments.checkpoints
    ]
    if arguments.model:
        found.append(argparse.Namespace(**{**given, "checkpoint": None}))
    if not 1 <= len(found) <= 2:
        raise UsageError(
            f"{len(found)} models: give one CHECKPOINT or --model, or two of them to compare"
        )
    return found


def _data_name(arguments: argparse.Namespace) -> str | None:
    """--data, else what the first checkpoint was trained on."""
    if arguments.data or arguments.images or not arguments.checkpoints:
        return None if arguments.data is None else str(arguments.data)
    from ddpm_ref.checkpoint import load_checkpoint

    try:
        return load_checkpoint(readable_file(arguments.checkpoints[0]), device="cpu").config.data
    except ValueError as error:
        raise UsageError(str(error)) from error


def _weighting_of(text: str) -> "Weighting":
    """`simple`, `min_snr`, `min_snr:3`, `p2:1,0.5` as a weighting.

    Raises:
        UsageError: no such name, or numbers that it does not take.
    """
    from ddpm_ref.objective import WEIGHTINGS, min_snr, p2

    name, colon, numbers = text.partition(":")
    if name not in WEIGHTINGS:
        raise unknown("weighting", name, WEIGHTINGS)
    if not colon:
        return WEIGHTINGS[name]
    if name not in _NUMBERS:
        raise UsageError(f"--weighting {text}: {name} takes no number; write --weighting {name}")
    try:
        values = [float(number) for number in numbers.split(",")]
        if len(values) != _NUMBERS[name]:
            raise ValueError(f"{name} takes {_NUMBERS[name]} numbers, not {len(values)}")
        return min_snr(*values) if name == "min_snr" else p2(*values)
    except ValueError as error:
        raise UsageError(
            f"--weighting {text}: {error}; min_snr:5 or p2:1,1, for instance"
        ) from error
