"""Laws on batches: a batch is its samples, and results are finite at every step."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Bound, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.lawbook.law import Case, Law, draw, settings_with_truth
from ddpm_ref.conformance.lawbook.truth import Truth
from ddpm_ref.conformance.setting import Setting

SHARED = ("mean", "covariance", "weights", "means", "covariances", "data")
"""Arguments that describe a distribution and have no batch axis."""


def calls(
    setting: Setting, known: Truth, batch: int, dims: tuple[int, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """One call of every method that takes a batch, at steps where all is defined."""
    shape = (batch, *dims)
    low, high = min(2, known.T), max(known.T - 1, 1)
    t = torch.tensor(([high, low, (low + high) // 2] * batch)[:batch])
    x0, eps, x_t, said = (draw(shape, salt) for salt in (1, 2, 4, 5))
    yield "q_sample", {"setting": setting, "x0": x0, "t": t, "noise": eps}
    yield "posterior", {"setting": setting, "x0": x0, "x_t": x_t, "t": t}
    range_ends = {"setting": setting, "meaning": "range", "said": said.sigmoid(), "t": t}
    yield "learned_variance", range_ends
    for space in ("eps", "v", "mean"):
        yield (
            "target",
            {"setting": setting, "parameterization": space, "x0": x0, "eps": eps, "t": t},
        )
        yield (
            "convert",
            {
                "setting": setting,
                "prediction": said,
                "x_t": x_t,
                "t": t,
                "source": space,
                "to": "x0",
            },
        )
    for weighting in ("simple", "min_snr", "elbo"):
        yield (
            "weight",
            {"setting": setting, "weighting": weighting, "t": t, "parameterization": "v"},
        )
        yield "loss", {
            "setting": setting, "prediction": said, "x0": x0, "eps": eps, "t": t, "parameterization": "v",
            "weighting": weighting,
        }  # fmt: skip
    yield "prior_kl", {"setting": setting, "x0": x0}
    if known.T >= 2:
        yield "bound_term", {
            "setting": setting, "prediction": said, "x0": x0, "x_t": x_t, "t": t, "parameterization": "v",
            "variance": "beta",
        }  # fmt: skip
    for sampler, eta in (("ddpm", 0.0), ("ddim", 0.5)):
        yield "sampler_step", {
            "setting": setting, "prediction": said, "x_t": x_t, "t": t, "noise": eps, "parameterization": "v",
            "sampler": sampler, "eta": eta,
        }  # fmt: skip
    flat = draw((batch, 3), 4)
    identity = torch.eye(3, dtype=torch.float64)
    gaussian = {"mean": draw((3,), 9), "covariance": identity + 0.5}
    yield "gaussian_denoise", {"setting": setting, **gaussian, "x_t": flat, "t": t}
    mixture = {
        "weights": torch.tensor([0.25, 0.75], dtype=torch.float64),
        "means": draw((2, 3), 11),
        "covariances": torch.stack([identity, identity + 0.5]),
    }
    yield "mixture_denoise", {"setting": setting, **mixture, "x_t": flat, "t": t}
    yield "empirical_denoise", {"setting": setting, "data": draw((7, 3), 13), "x_t": flat, "t": t}
    yield "gaussian_log_prob", {**gaussian, "x0": flat}
    yield "mixture_log_prob", {**mixture, "x0": flat}


def tensors(result: Any) -> list[Tensor]:
    """All tensors of a result, of which there must be one: over none, every law here would hold."""
    if isinstance(result, (Posterior, Bound)):
        parts = list(vars(result).values())
    elif isinstance(result, Mapping):
        parts = list(result.values())
    else:
        parts = list(result) if isinstance(result, tuple) else [result]
    found = [part for part in parts if isinstance(part, Tensor)]
    if not found:
        raise TypeError(f"a {type(result).__name__} without a tensor was returned")
    return found


def _row(arguments: Mapping[str, Any], index: int) -> list[Any]:
    return [
        value[index : index + 1] if isinstance(value, Tensor) and name not in SHARED else value
        for name, value in arguments.items()
    ]


def _separable(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        for batch, dims in ((2, (3,)), (3, (3,)), (5, (1, 2, 3))):
            for method, arguments in calls(setting, known, batch, dims):

                def difference(
                    candidate: Implementation, method: str = method, arguments: Any = arguments
                ) -> Tensor:
                    together = tensors(getattr(candidate, method)(*arguments.values()))
                    size = next(
                        len(v) for v in arguments.values() if isinstance(v, Tensor) and v.ndim
                    )
                    size = len(arguments["t"]) if "t" in arguments else size
                    size = len(arguments["x0"]) if "x0" in arguments else size
                    worst = torch.zeros((), dtype=torch.float64)
                    for index in range(size):
                        alone = tensors(getattr(candidate, method)(*_row(arguments, index)))
                        for whole, one in zip(together, alone, strict=True):
                            part = (
                                whole[index : index + 1] if len(whole) == size else whole
                            ).double()
                            gap = torch.where(part == one, 0.0, (part - one.double()).abs())
                            if part.shape != one.shape:
                                gap = torch.full((1,), torch.inf)
                            worst = torch.maximum(worst, (gap / (1 + one.abs())).max().double())
                    return worst.reshape(1)

                yield Case(
                    method,
                    arguments,
                    torch.zeros(1, dtype=torch.float64),
                    run=difference,
                    label=f"{method} of a batch minus {method} of its samples one by one",
                )


def _finite(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        last_defined = known.T - 1 if setting.zero_terminal_snr else known.T
        t = torch.arange(1, last_defined + 1)
        for method, arguments in calls(setting, known, len(t), (1,)):
            if "t" not in arguments or method.endswith("denoise") or method == "bound_term":
                continue
            arguments = {**arguments, "t": t}

            def bad(
                candidate: Implementation, method: str = method, arguments: Any = arguments
            ) -> Tensor:
                result = getattr(candidate, method)(*arguments.values())
                if isinstance(result, Posterior):
                    result = (result.mean, result.variance)
                    if all(part is None for part in result):
                        raise NotOffered(f"{candidate.name} offers neither mean nor variance")
                kept = tensors(result)
                return torch.tensor([sum(int((~torch.isfinite(v)).sum()) for v in kept)])

            yield Case(
                method,
                arguments,
                torch.zeros(1, dtype=torch.float64),
                run=bad,
                label=f"number of NaN or infinite entries of {method} over all t",
            )


LAWS = (
    Law(
        "I17-separable",
        "a batch is its samples",
        "f(batch)[i] = f(sample i), for every function of a batch; also when B = D.",
        "Samples are independent: nothing may be averaged, broadcast or mixed across them.",
        "Seen: mean(w)·mean(err); a (B, B) outer product; a weight broadcast along the wrong axis.",
        {torch.float64: 1e-12},
        "The same arithmetic in another batch shape.",
        _separable,
        mixed=True,
    ),
    Law(
        "I14-finite",
        "finite everywhere",
        "Every function is finite at every t where it is defined.",
        "All denominators are positive for β in (0, 1).",
        "Seen: log β under a square root; 0/0 at the first or last step.",
        {torch.float64: 0.0},
        "A count.",
        _finite,
        mixed=True,
    ),
)
