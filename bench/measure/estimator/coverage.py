r"""How honest and how cheap is `estimate_elbo`? Coverage of its interval, and its error against other ways to spend evaluations.

A *pool* of evaluated terms stands for the truth: every image at every t, with many noise draws where terms are large. Its mean is the
reference. The other ways are simulated by drawing from the pool, which costs no further evaluations and measures their errors
against the pool's own mean:

- **full sum**: all T steps of n/T random images;
- **uniform t**: n random (image, t), weighted by T;
- **importance-sampled t**: t with probability ∝ √E L_t², the rule of Nichol & Dhariwal 2021 (section 3.3) with 0.1 % uniform, as in their
  code. Fairly: with the exact second moments from the pool and no warm-up, which in their code takes ten evaluations of each t.

`estimate_elbo` itself is run afresh, all its evaluations counted. At equal root mean squared error a way needs as many times
more evaluations as its mean squared error is larger at the same n, since all of these errors fall like 1/n. Only for the full sum a
floor applies: it spends T evaluations at least.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.metrics.bits_per_dim import Question
from bench.record import Record, new_record, series
from bench.record.statistics import proportion_interval, ratio_interval
from bench.terminal.progress import progress
from ddpm_ref.estimator import estimate_elbo
from ddpm_ref.kernels import fast_normal
from ddpm_ref.noise import NoiseStream
from ddpm_ref.reverse import evaluation_mode, reverse_process
from ddpm_ref.terms import prior_kl

_UNIFORM_SHARE = 0.001
_POOL_STEP = 1 << 30
_SPACING = 1 << 16  # steps of the noise stream for one t
OTHERS = ("full sum", "uniform t", "importance-sampled t")


@dataclass(frozen=True, eq=False)
class Pool:
    """Evaluated terms.

    Attributes:
        terms: for each t = 1 … T, float64 `[draws, N]` nats.
        prior: mean L_T, nats.
        evaluations: spent on it.
    """

    terms: list[Tensor]
    prior: float
    evaluations: int

    @property
    def reference(self) -> float:
        """Mean bound, nats."""
        return self.prior + sum(float(values.mean()) for values in self.terms)

    @property
    def reference_error(self) -> float:
        """Standard error of the reference from the noise draws, nats (steps with one draw borrow the spread of images)."""
        total = 0.0
        for values in self.terms:
            draws, size = values.shape
            spread = values.var(dim=0).mean() if draws > 1 else values.var()
            total += float(spread) / (draws * size)
        return float(total**0.5)


def draws_at(t: int, T: int, most: int) -> int:
    """`most` draws at the first steps, where the terms are large, and fewer later: a 4th, a 24th, a 96th."""
    shares = ((40, 1), (10, 4), (10 / 3, 24))
    divisor = next((divisor for share, divisor in shares if t <= T / share), 96)
    return max(1, most // divisor)


def fill_pool(question: Question, draws: int, seed: int = 1) -> Pool:
    """Evaluate the pool, at most `draws` times at one t, with noise that the estimates do not use."""
    process = reverse_process(
        question.model,
        question.schedule,
        parameterization=question.parameterization,
        variance=question.variance,
        decoder=question.decoder,
        levels=question.levels,
        clip=question.clip,
    )
    stream, images, T = NoiseStream(seed), question.data, question.schedule.T
    terms = []
    with evaluation_mode(question.model):
        for step in progress(range(1, T + 1), total=T, label="reference"):
            t = torch.full((len(images),), step, device=images.device)
            rows = [
                process.terms(
                    images,
                    t,
                    fast_normal(
                        stream,
                        images.shape,
                        step=_POOL_STEP + _SPACING * step + draw,
                        device=images.device,
                        dtype=images.dtype,
                    ),
                ).cpu()
                for draw in range(draws_at(step, T, draws))
            ]
            terms.append(torch.stack(rows))
    return Pool(
        terms, float(prior_kl(images, question.schedule).mean()), sum(v.numel() for v in terms)
    )


def simulate(pool: Pool, way: str, evaluations: int, repetitions: int, seed: int = 2) -> Tensor:
    """Errors, nats, of `repetitions` estimates that spend `evaluations` in one of the other ways."""
    generator = torch.Generator().manual_seed(seed)
    pick = _full_sum if way == "full sum" else _sampled_t
    probability = _probability(pool, way)
    estimates = [pick(pool, probability, evaluations, generator) for _ in range(repetitions)]
    return torch.tensor(estimates, dtype=torch.float64) + pool.prior - pool.reference


def _probability(pool: Pool, way: str) -> Tensor:
    T = len(pool.terms)
    uniform = torch.full((T,), 1 / T, dtype=torch.float64)
    if way != "importance-sampled t":
        return uniform
    moment = torch.stack([values.square().mean() for values in pool.terms]).sqrt()
    return (1 - _UNIFORM_SHARE) * moment / moment.sum() + _UNIFORM_SHARE * uniform


def _sampled_t(
    pool: Pool, probability: Tensor, evaluations: int, generator: torch.Generator
) -> float:
    counts = torch.bincount(
        torch.multinomial(probability, evaluations, replacement=True, generator=generator),
        minlength=len(probability),
    )
    total = 0.0
    for step in counts.nonzero()[:, 0].tolist():
        values = pool.terms[step].reshape(-1)
        chosen = torch.randint(len(values), (int(counts[step]),), generator=generator)
        total += float(values[chosen].sum() / probability[step])
    return total / evaluations


def _full_sum(
    pool: Pool, probability: Tensor, evaluations: int, generator: torch.Generator
) -> float:
    size, images = pool.terms[0].shape[1], max(1, evaluations // len(probability))
    chosen = torch.randperm(size, generator=generator)[:images]
    return sum(
        float(values[torch.randint(len(values), (1,), generator=generator)[0], chosen].mean())
        for values in pool.terms
    )


def estimator_record(
    question: Question,
    pool: Pool,
    *,
    evaluations: int,
    repetitions: int,
    subject: str,
    command: str,
) -> Record:
    """Coverage over `repetitions` and the ratios of evaluations, with intervals.

    Args:
        question: model, data and protocol.
        pool: its evaluated terms.
        evaluations: the budget of one estimate.
        repetitions: independent estimates.
        subject: what the model is, for the record.
        command: what makes the record again.
    """
    found = [
        estimate_elbo(
            question.model,
            question.data,
            question.schedule,
            evaluations=evaluations,
            parameterization=question.parameterization,
            variance=question.variance,
            decoder=question.decoder,
            levels=question.levels,
            clip=question.clip,
            batch_size=question.batch_size,
            seed=seed,
        )
        for seed in progress(range(repetitions), total=repetitions, label="estimates")
    ]
    unit = found[0].dims * math.log(2)
    reference = pool.reference / unit
    errors = [f.bits_per_dim - reference for f in found]
    covered = sum(low <= reference <= high for low, high in (f.interval() for f in found))
    ratios, samples = {}, {"estimate_elbo": series(errors, unit="bits/dim", better="neither")}
    for way in OTHERS:
        theirs = (simulate(pool, way, evaluations, repetitions) / unit).tolist()
        ratios[way] = ratio_interval(theirs, errors, statistic="mean_square").as_json()
        samples[way] = series(theirs, unit="bits/dim", better="neither")
    return new_record(
        "estimator",
        protocol={
            "subject": subject,
            "command": command,
            "bound": found[0].protocol.describe(),
            "evaluations": evaluations,
            "repetitions": repetitions,
            "images": len(question.data),
            "T": question.schedule.T,
        },
        data=question.source,
        seeds=range(repetitions),
        samples=samples,
        results={
            "reference": reference,
            "reference_stderr": pool.reference_error / unit,
            "reference_evaluations": pool.evaluations,
            "rmse": float(torch.tensor(errors).square().mean().sqrt()),
            "mean_stderr": sum(f.stderr for f in found) / repetitions,
            "largest_spent": max(f.evaluations for f in found),
            "coverage": proportion_interval(covered, repetitions).as_json(),
            "evaluation_ratios": ratios,
        },
    )
