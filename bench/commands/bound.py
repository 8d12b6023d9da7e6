"""`ddpm-bench bound`: the exact bound, its gaps, limits and prices, as a record."""

import argparse
from collections.abc import Mapping
from typing import Any

from bench.commands.subject import add_subject, checkpoint_file, question_from
from bench.terminal.usage import at_least, writable_directory

HELP = """measure the exact bound: gaps, limits, identities, the price of each reverse variance

  ddpm-bench bound                                     closed forms only, seconds
  ddpm-bench bound --grid                              also Monte Carlo of every cell, minutes
  ddpm-bench bound --price runs/digits/checkpoint.pt   also what Σ costs for a trained model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.add_argument("--grid", action="store_true", help="Monte Carlo of `elbo` in every cell")
    parser.add_argument("--samples", type=at_least(100), default=1000, help="of each cell (1000)")
    parser.add_argument(
        "--price",
        type=checkpoint_file,
        metavar="CHECKPOINT",
        dest="checkpoint",
        help="a trained model: the file, or the folder of its run",
    )
    add_subject(parser)
    parser.add_argument(
        "--out", default="ddpm-bench-report/records", metavar="DIR", help="where the record goes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compute, save the record, print the main figures; 1 where an inequality or the grid fails."""
    from bench.measure.bound import bound_record
    from bench.measure.bound.grid import monte_carlo_grid
    from bench.record import save
    from bench.record.kinds import violations

    directory = writable_directory(arguments.out)
    wanted = arguments.checkpoint or arguments.model
    model = _model_prices(arguments) if wanted else None
    grid = monte_carlo_grid(samples=arguments.samples) if arguments.grid else None
    record = bound_record(grid=grid, model=model)
    print("\n".join(_figures(record.results)))
    print(f"record: {save(record, directory)}")
    wrong = violations(record)
    for reason in wrong:
        print(f"violated: {reason}")
    return 1 if wrong else 0


def _figures(results: Mapping[str, Any]) -> list[str]:
    """The main figures, a line each."""
    least = min(row["gap"] for row in results["gaps"])
    worst, slack = results["unit_beta_largest_difference"], results["pointwise_least_slack"]
    grid = results["grid"]
    cells = (
        []
        if grid is None
        else [
            f"grid: {len(grid['cells'])} cells, largest |z| {grid['largest']:.2f}, "
            f"Kolmogorov-Smirnov p {grid['ks_p_value']:.3f}"
        ]
    )
    return [
        f"least gap between bound and entropy: {least:.3g} nats/dim (0 at least)",
        f"largest |bound - entropy| for N(0, I) with variance beta: {worst:.2g} nats (0 in theory)",
        f"least slack of the bound against the model's own density: {slack:.3g} nats",
        *cells,
    ]


def _model_prices(arguments: argparse.Namespace) -> dict[str, object]:
    from bench.measure.bound.prices import model_prices

    question = question_from(arguments)
    steps = sorted({T for T in (10, 100, 1000) if T < question.schedule.T} | {question.schedule.T})
    rows = model_prices(
        question.model, question.data, question.schedule, question.parameterization, tuple(steps)
    )
    return {"rows": rows, "images": len(question.data), "T": question.schedule.T}
