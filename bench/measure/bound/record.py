"""The record "bound": what is computed, in which order, under which protocol."""

from collections.abc import Mapping

from bench.measure.bound import exact, prices
from bench.record import Record, new_record

STEPS = (10, 30, 100, 300, 1000, 3000)


def bound_record(
    *,
    steps: tuple[int, ...] = STEPS,
    grid: Mapping[str, object] | None = None,
    model: Mapping[str, object] | None = None,
) -> Record:
    """Closed forms of the bound, in seconds.

    Args:
        steps: numbers of steps T of the curves.
        grid: the result of `monte_carlo_grid`, where it was run.
        model: prices of a trained model and what it is, where one was given.
    """
    few = tuple(T for T in (1, 2, 10, 100, 1000, 4000) if 2 * steps[-1] >= T)
    pointwise = exact.pointwise_slack(few[:5])
    results: dict[str, object] = {
        "gaps": exact.gaps(steps),
        "euler_half": exact.EULER / 2,
        "interiors": exact.interior_spread(steps),
        "unit_beta_largest_difference": exact.exact_equality(few),
        "pointwise": pointwise,
        "pointwise_least_slack": min(float(str(row["least"])) for row in pointwise),
        "i_mmse": exact.i_mmse(),
        "prices": prices.gaussian_prices((10, 100, 1000)),
        "grid": None if grid is None else dict(grid),
        "model": None if model is None else dict(model),
    }
    protocol = {
        "field": "64-dimensional Gaussian field of the data set `gaussian`",
        "mixture": "0.3 N(-1, 0.1²) + 0.7 N(0.8, 0.3²)",
        "unit": "N(0, I), 3 dimensions",
        "log_snr_ends": [exact.END, -exact.END],
        "decoder": "gaussian",
        "T": list(steps),
    }
    return new_record("bound", protocol=protocol, results=results)
