"""`ddpm-bench elbo`: bits/dim of our checkpoint or of anybody's model, term by term.

`--json` writes strict JSON with the `schema` "ddpm-bench.elbo/1". Its fields: `bits_per_dim` with `bits_per_dim_stderr`,
`stderr_meaning` and `stderr_degrees_of_freedom` (for Student's t); `terms_nats` (`prior`, `diffusion`, `reconstruction`, `total`;
each `mean` and `stderr`, nats per example); `curve_nats` (the term of t = 1 … T) with `curve_is_smoothed`; `dims`, `examples`,
`evaluations`; `protocol`; `read` (what a model's own configuration said). A standard error of 0 is that of an exact mean; it is null, unknown, for the full sum over one image.
Where the bound is not finite there are only `schema`, `bits_per_dim`: null and the `reason`.
"""

import argparse
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from bench.commands.output import check_picture, write_json
from bench.commands.subject import add_checkpoint, add_subject, question_from
from bench.terminal.usage import (
    UsageError,
    at_home,
    at_least,
    writable_directory,
    writable_file,
)

if TYPE_CHECKING:
    from bench.metrics.bits_per_dim import Likelihood

SCHEMA = "ddpm-bench.elbo/1"

HELP = """bits/dim of a checkpoint or of your model, term by term, with standard errors

  ddpm-bench elbo runs/digits/checkpoint.pt --data digits
  ddpm-bench elbo --model hf:my_pipeline --images my_images
  ddpm-bench elbo --model my_model.py:make --data digits --schedule linear --T 1000
  ddpm-bench elbo runs/digits/checkpoint.pt --evaluations 20000 --json bound.json --out bound.png
  torchrun --nproc-per-node 2 -m bench elbo runs/digits/checkpoint.pt --full

the factory returns a model, (model, Schedule), (model, diffusers scheduler) or a diffusers pipeline: docs/elbo-of-your-model.md"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    add_checkpoint(parser)
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


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; 1 where the bound is not finite."""
    import math

    from bench.job.together import is_chief, together
    from bench.report.bits_per_dim import as_text, draw_curve

    if arguments.draws != 1 and not arguments.full:
        raise UsageError(
            f"--draws {arguments.draws} belongs to --full: a budget chooses its own draws; add --full or leave it out"
        )
    for option, path in (("--out", arguments.out), ("--json", arguments.json)):
        if path not in (None, "-"):
            writable_directory(at_home(path).parent, option)
            writable_file(path, option)
    if arguments.out is not None:
        check_picture(arguments.out, "--out")
    # With `--json -` only the JSON goes to standard output, whatever a user's factory or model prints.
    with (
        redirect_stdout(sys.stderr if arguments.json == "-" else sys.stdout),
        together(arguments.device) as arguments.device,
    ):
        found = _measured(arguments).as_json()
    good = math.isfinite(found["bits_per_dim"])
    if not is_chief():
        return 0 if good else 1
    if arguments.json:
        write_json(
            SCHEMA,
            found if good else {"bits_per_dim": None, "reason": "not finite"},
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
