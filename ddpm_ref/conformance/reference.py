"""Our own implementation under the laws: an adapter like any other, one call per method.

`Reference` is also what the mutants override, one method at a time.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from ddpm_ref import __version__
from ddpm_ref.config import TrainConfig
from ddpm_ref.conformance.implementation import Bound, Implementation, Model, NotOffered, Posterior
from ddpm_ref.conformance.setting import STANDARD_SETTINGS, Setting
from ddpm_ref.elbo import elbo
from ddpm_ref.estimator import estimate_elbo
from ddpm_ref.gaussian import discretized_gaussian_log_likelihood, gaussian_kl
from ddpm_ref.kernels import fused_q_sample, q_sample
from ddpm_ref.learned import hybrid_loss, learned_range
from ddpm_ref.noise import NoiseStream
from ddpm_ref.objective import (
    TRAINING_WEIGHTINGS,
    WEIGHTINGS,
    Weighting,
    loss,
    min_snr,
    p2,
    weight,
)
from ddpm_ref.optimization import averaged_model, ema_decay
from ddpm_ref.oracle import EmpiricalOracle, GaussianOracle, MixtureOracle, rank_limited_excess
from ddpm_ref.parameterization import PARAMETERIZATIONS, convert, target
from ddpm_ref.process import q_posterior
from ddpm_ref.reverse import reverse_variance, sum_dims
from ddpm_ref.sampler import SamplerRule, sample, step
from ddpm_ref.schedule import (
    SCHEDULES,
    Schedule,
    compute_dtype,
    rescale_to_zero_terminal_snr,
    schedule_from_beta,
    schedule_from_log_snr,
)
from ddpm_ref.terms import ElboTerms, prior_kl
from ddpm_ref.times import make_times
from ddpm_ref.trainer import train


@lru_cache(maxsize=64)
def schedule_of(setting: Setting) -> Schedule:
    """Our schedule for a setting."""
    if setting.log_snr is not None:
        schedule = schedule_from_log_snr(setting.log_snr)
    elif setting.beta is not None:
        schedule = schedule_from_beta(setting.beta)
    elif setting.name in SCHEDULES:
        schedule = SCHEDULES[setting.name](setting.T, **dict(setting.parameters))
    else:
        raise NotOffered(f"no schedule named {setting.name!r}")
    schedule = rescale_to_zero_terminal_snr(schedule) if setting.zero_terminal_snr else schedule
    return schedule if setting.timesteps is None else schedule.respaced(setting.timesteps)


class Reference(Implementation):
    """`ddpm_ref` itself."""

    name = "ddpm_ref"
    version = __version__
    other_lengths = own_schedules = other_parameters = True
    parameterizations = tuple(PARAMETERIZATIONS)
    weightings = (*WEIGHTINGS, *TRAINING_WEIGHTINGS)

    def settings(self) -> Sequence[Setting]:
        """The usual ones, and every other schedule of the registry."""
        asked = {setting.name for setting in STANDARD_SETTINGS}
        return (*STANDARD_SETTINGS, *(Setting(n, 1000) for n in SCHEDULES if n not in asked))

    def schedule(self, setting: Setting) -> Schedule:
        """The schedule that every method uses: the one place where a mutant exchanges it."""
        return schedule_of(setting)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """The stored tables without the entry of clean data."""
        schedule = self.schedule(setting)
        names = ("beta", "alpha_bar", "one_minus_alpha_bar", "log_snr", "posterior_variance")
        found = {name: getattr(schedule, name)[1:] for name in names}
        return {**found, "snr": found["log_snr"].exp()}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """`ddpm_ref.q_sample`."""
        return q_sample(x0, t, self.schedule(setting), noise)

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """`ddpm_ref.fused_q_sample`, by the provider that works here."""
        return fused_q_sample(x0, t, self.schedule(setting), NoiseStream(seed), step=0)

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """`ddpm_ref.q_posterior`."""
        gaussian = q_posterior(x0, x_t, t, self.schedule(setting))
        return Posterior(gaussian.mean, gaussian.log_var.exp(), gaussian.log_var)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """The table of `ddpm_ref.reverse` and its logarithm."""
        values = reverse_variance(variance, self.schedule(setting))[t]
        return values, values.log()

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`log`: what `ddpm_ref` takes from a model; `range`: `ddpm_ref.learned_range`."""
        log_variance = said if meaning == "log" else learned_range(said, t, self.schedule(setting))
        return log_variance.exp(), log_variance

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        """`ddpm_ref.target`."""
        return target(parameterization, x0, eps, t, self.schedule(setting))

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`ddpm_ref.convert`."""
        return convert(prediction, x_t, t, self.schedule(setting), source=source, to=to)

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        """`ddpm_ref.weight`."""
        return weight(
            _weighting(weighting), t, self.schedule(setting), parameterization=parameterization
        )

    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        """`ddpm_ref.loss`."""
        return loss(
            prediction,
            x0,
            eps,
            t,
            self.schedule(setting),
            parameterization=parameterization,
            weighting=_weighting(weighting),
        )

    def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
        """`ddpm_ref.hybrid_loss`."""
        return hybrid_loss(simple, bound_term, setting.steps)

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        """`ddpm_ref.gaussian_kl`."""
        return gaussian_kl(mean1, log_var1, mean2, log_var2)

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        """`ddpm_ref.discretized_gaussian_log_likelihood`."""
        return discretized_gaussian_log_likelihood(x, mean, log_scale, levels)

    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        """`ddpm_ref.prior_kl`."""
        return prior_kl(x0, self.schedule(setting))

    def bound_term(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        """Posterior against the model's Gaussian, by the pieces that `ddpm_ref.elbo` uses."""
        forward = self.posterior(setting, x0, x_t, t)
        mean = self.convert(setting, prediction, x_t, t, parameterization, "mean")
        _, log_var = self.reverse_variance(setting, variance, t)
        log_var = log_var.reshape(-1, *[1] * (x0.ndim - 1)).expand_as(mean)
        assert forward.log_variance is not None
        return sum_dims(self.gaussian_kl(forward.mean, forward.log_variance, mean, log_var))

    def bound(
        self,
        setting: Setting,
        model: Model,
        x0: Tensor,
        parameterization: str,
        variance: str,
        decoder: str,
        levels: int | None,
    ) -> Bound:
        """`ddpm_ref.elbo`."""
        return _terms(
            elbo(
                model,
                x0,
                self.schedule(setting),
                parameterization=parameterization,
                variance=variance,
                decoder=decoder,
                levels=levels,
            )
        )

    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        """The unit of `ElboTerms.bits_per_dim`."""
        nothing = torch.zeros_like(nats)
        return ElboTerms(nats, nothing[:, None], nothing, dims).bits_per_dim

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """`GaussianOracle.denoise`."""
        return GaussianOracle(mean, covariance).denoise(x_t, t, self.schedule(setting))

    def mixture_denoise(
        self,
        setting: Setting,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        x_t: Tensor,
        t: Tensor,
    ) -> Tensor:
        """`MixtureOracle.denoise`."""
        oracle = MixtureOracle(weights, means, covariances)
        return oracle.denoise(x_t, t, self.schedule(setting))

    def empirical_denoise(self, setting: Setting, data: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """`EmpiricalOracle.denoise`."""
        return EmpiricalOracle(data).denoise(x_t, t, self.schedule(setting))

    def gaussian_log_prob(self, mean: Tensor, covariance: Tensor, x0: Tensor) -> Tensor:
        """`GaussianOracle.log_prob`."""
        return GaussianOracle(mean, covariance).log_prob(x0)

    def mixture_log_prob(
        self, weights: Tensor, means: Tensor, covariances: Tensor, x0: Tensor
    ) -> Tensor:
        """`MixtureOracle.log_prob`."""
        return MixtureOracle(weights, means, covariances).log_prob(x0)

    def gaussian_entropy(self, covariance: Tensor) -> float:
        """`GaussianOracle.entropy`."""
        return float(GaussianOracle(torch.zeros(len(covariance)), covariance).entropy())

    def gaussian_bound(
        self, setting: Setting, mean: Tensor, covariance: Tensor, variance: str
    ) -> Bound:
        """`GaussianOracle.expected_elbo`."""
        oracle = GaussianOracle(mean, covariance)
        return _terms(oracle.expected_elbo(self.schedule(setting), variance))

    def rank_limited_excess(
        self, setting: Setting, eigenvalues: Tensor, rank: int, t: Tensor, parameterization: str
    ) -> Tensor:
        """`ddpm_ref.rank_limited_excess`."""
        schedule = self.schedule(setting)
        return rank_limited_excess(
            eigenvalues, rank, t, schedule, parameterization=parameterization
        )

    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        """`ddpm_ref.sampler.step`, with the noise that its Gaussian asks for; a state is float32 or wider, as in `sample`."""
        rule = SamplerRule(sampler, eta=eta if sampler == "ddim" else None)
        wide = compute_dtype(x_t.dtype)
        reached = step(
            prediction.to(wide),
            x_t.to(wide),
            t,
            self.schedule(setting),
            parameterization=parameterization,
            rule=rule,
        )
        state = reached.mean + torch.exp(0.5 * reached.log_var) * noise.to(wide)
        return state.to(x_t.dtype)

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        """`ddpm_ref.sample`."""
        return sample(
            model, shape, self.schedule(setting), parameterization=parameterization, sampler=sampler
        )

    def ancestral_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        """`ddpm_ref.sampler.step` with a variance; a state is float32 or wider."""
        wide = compute_dtype(x_t.dtype)
        reached = step(
            prediction.to(wide),
            x_t.to(wide),
            t,
            self.schedule(setting),
            parameterization=parameterization,
            rule=SamplerRule("ddpm", variance=variance),
        )
        state = reached.mean + torch.exp(0.5 * reached.log_var) * noise.to(wide)
        return state.to(x_t.dtype)

    def chain_in(
        self, setting: Setting, model: Model, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """`ddpm_ref.sample` with that dtype."""
        return sample(
            model, shape, self.schedule(setting), parameterization="x0", sampler="ddim", dtype=dtype
        )

    def mean_bound(
        self, setting: Setting, model: Model, x0: Tensor, variance: str, draws: int
    ) -> Bound:
        """`ddpm_ref.elbo` with `draws`."""
        return _terms(
            elbo(
                model,
                x0,
                self.schedule(setting),
                parameterization="x0",
                variance=variance,
                decoder="gaussian",
                draws=draws,
            )
        )

    def bound_estimate(
        self, setting: Setting, model: Model, data: Tensor, evaluations: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """`ddpm_ref.estimate_elbo`, whose bits are ln 2 nats."""
        found = estimate_elbo(
            model,
            data,
            self.schedule(setting),
            evaluations=evaluations,
            parameterization="x0",
            decoder="gaussian",
            seed=seed,
        )
        bits = torch.tensor([found.bits_per_dim, found.stderr], dtype=torch.float64)
        value, error = bits * math.log(2)
        return value, error

    def trained(self, steps: int) -> tuple[Tensor, Tensor]:
        """`ddpm_ref.train` on noise images; the weight is the first of the network's largest parameter."""
        config = TrainConfig(T=7, batch_size=4, steps=steps, warmup_steps=1)
        images = NoiseStream(0).normal((8, 1, 8, 8), step=0).clamp(-1, 1)
        weights: list[Tensor] = []
        averages: list[Tensor] = []
        for done in train(config, images):
            for kept, network in ((weights, done.network), (averages, done.ema)):
                largest = max(network.parameters(), key=torch.numel)
                kept.append(largest.detach().flatten()[0].double().clone())
        return torch.stack(weights), torch.stack(averages)

    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        """`NoiseStream.normal`."""
        return NoiseStream(seed).normal(shape, step=step, first_index=first_index)

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        """The uniform draw that the trainer makes; `tests/test_expectation_laws.py` holds every other draw against the same laws."""
        times = make_times("uniform", schedule_of(Setting("linear", T)))
        t = times.draw(NoiseStream(seed), 0, 0, count, count)
        return t, times.weights[t - 1]

    def ema(self, values: Tensor, decay: float) -> Tensor:
        """The trainer's average once its warm-up is over, which the first value is held for."""
        return _averages(values, decay)


_OTHER_WEIGHTINGS: dict[str, Weighting] = {
    **TRAINING_WEIGHTINGS,
    "min_snr(gamma=1)": min_snr(1.0),
    "p2(k=2, gamma=0.5)": p2(2.0, 0.5),
    "p2(k=0.5, gamma=2)": p2(0.5, 2.0),
}


def _weighting(name: str) -> str | Weighting:
    return _OTHER_WEIGHTINGS.get(name, name)


def _averages(values: Tensor, decay: float) -> Tensor:
    """`torch.optim.swa_utils` on a module that holds one number."""
    holder = nn.Linear(1, 1, bias=False, dtype=values.dtype)
    average = averaged_model(holder, decay)
    update = 1
    while ema_decay(update, decay) < decay:
        update += 1
    history = []
    for value in (*values[:1].expand(update), *values):
        nn.init.constant_(holder.weight, float(value))
        average.update_parameters(holder)
        history.append(next(average.module.parameters()).detach().reshape(()).clone())
    return torch.stack(history[update:])


def _terms(terms: ElboTerms) -> Bound:
    return Bound(
        prior=terms.prior,
        diffusion=terms.diffusion,
        reconstruction=terms.reconstruction,
        total=terms.total,
        bits_per_dim=terms.bits_per_dim,
    )
