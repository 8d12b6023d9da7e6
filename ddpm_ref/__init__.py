"""A reference DDPM whose every line is derived, checked against exact truth, and bit-exact where it is random.

The files read in the order of their imports, and their docstrings together are one derivation, from the forward process
(`schedule`, `process`) over what a network may predict (`parameterization`) and how its error may be weighted (`objective`)
to the bound that all this stands for (`elbo`) and the models for which the bound is known exactly (`oracle`).

| name | meaning | unit, shape |
|---|---|---|
| `T` | number of diffusion steps | integer ≥ 1 |
| `t` | step index 1 … T as in Ho et al. 2020; index 0 of every table is clean data | int64 `[B]` |
| `beta[t]` | step variance, `beta[0] = 0` | float64 `[T+1]` |
| `alpha_bar[t]` | ∏(1−beta), `alpha_bar[0] = 1` | float64 `[T+1]` |
| `log_snr[t]` | ln(alpha_bar / (1−alpha_bar)); `+inf` at 0, `−inf` at T under zero terminal SNR | float64 `[T+1]` |
| `x0`, `x_t`, `eps` | data, noisy data, noise | `[B, *dims]` |
| `v` | √alpha_bar·eps − √(1−alpha_bar)·x0 (Salimans & Ho 2022) | `[B, *dims]` |
| `score` | ∇ log q(x_t given x0) = −eps / √(1−alpha_bar) | `[B, *dims]` |
| `mean` | mean of q(x_{t−1} given x_t, x0): Ho et al.'s μ̃ | `[B, *dims]` |
| ELBO terms, KL, log-likelihood | natural log, summed over dims | nats, `[B]` |
| bits/dim | nats / (dims · ln 2), converted once, at the edge | bits |

The words `alpha` and `snr` alone never name a public thing: their meaning differs between libraries.

The laws that all of this obeys, and the adapters that hold other people's code against them, are in
`ddpm_ref.conformance`.
"""

from typing import TYPE_CHECKING, Any

from ddpm_ref.config import TrainConfig
from ddpm_ref.elbo import elbo
from ddpm_ref.estimator import (
    DenoiserError,
    ElboEstimate,
    LossEstimate,
    estimate_elbo,
    optimal_loss,
    validation_loss,
)
from ddpm_ref.gaussian import Gaussian, discretized_gaussian_log_likelihood, gaussian_kl
from ddpm_ref.kernels import fused_q_sample, q_sample, q_sample_providers
from ddpm_ref.learned import bound_terms, hybrid_loss, learned_range
from ddpm_ref.network import MLP, NETWORKS, ArticleDenoiser, DDPMUNet, LowRank, UNet
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.objective import (
    TRAINING_WEIGHTINGS,
    WEIGHTINGS,
    Weighting,
    edm,
    loss,
    min_snr,
    p2,
    weight,
)
from ddpm_ref.oracle import (
    EmbeddedOracle,
    EmpiricalOracle,
    GaussianOracle,
    MixtureOracle,
    best_skip,
    crossover,
    output_skip,
    rank_limited_excess,
    wiener_gain,
)
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert, target
from ddpm_ref.process import q_posterior
from ddpm_ref.sampler import sample
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    cosine_schedule,
    flow_schedule,
    linear_schedule,
    rescale_to_zero_terminal_snr,
    schedule_from_beta,
    schedule_from_log_snr,
    sigmoid_schedule,
)
from ddpm_ref.terms import ElboTerms, prior_kl
from ddpm_ref.trainer import Step, train

if TYPE_CHECKING:
    from ddpm_ref import conformance

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`ddpm_ref.conformance`, imported when it is first asked for: who trains does not wait for the laws."""
    if name != "conformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"{__name__}.{name}")


__all__ = [
    "MLP",
    "NETWORKS",
    "PARAMETERIZATIONS",
    "SCHEDULES",
    "TRAINING_WEIGHTINGS",
    "WEIGHTINGS",
    "ArticleDenoiser",
    "DDPMUNet",
    "DenoiserError",
    "ElboEstimate",
    "ElboTerms",
    "EmbeddedOracle",
    "EmpiricalOracle",
    "Gaussian",
    "GaussianOracle",
    "LossEstimate",
    "LowRank",
    "MixtureOracle",
    "NoiseStream",
    "Schedule",
    "Step",
    "TrainConfig",
    "UNet",
    "Use",
    "Weighting",
    "best_skip",
    "bound_terms",
    "conformance",
    "convert",
    "cosine_schedule",
    "crossover",
    "discretized_gaussian_log_likelihood",
    "edm",
    "elbo",
    "estimate_elbo",
    "flow_schedule",
    "fused_q_sample",
    "gaussian_kl",
    "hybrid_loss",
    "learned_range",
    "linear_schedule",
    "loss",
    "min_snr",
    "optimal_loss",
    "output_skip",
    "p2",
    "prior_kl",
    "q_posterior",
    "q_sample",
    "q_sample_providers",
    "rank_limited_excess",
    "rescale_to_zero_terminal_snr",
    "sample",
    "schedule_from_beta",
    "schedule_from_log_snr",
    "sigmoid_schedule",
    "target",
    "train",
    "validation_loss",
    "weight",
    "wiener_gain",
]
