r"""The least training loss that there is: what is left when a network has memorized its data.

For x_0 uniform on a data set x^1 … x^N the best denoiser is known (`oracle.empirical`, 1), and with it the least expected squared error at
each level of noise, which no training can undercut:

    J_t = E‖x_0 − E[x_0 | x_t]‖² = E‖x_0‖² − E‖E[x_0 | x_t]‖²              (Xu et al. 2025, arXiv 2506.13763).          (1)

The right-hand side is a difference of two large numbers, and at low noise nothing is left of it. Here the middle is averaged over
examples and noise. With x_t = αy + σε from the example y, ρ = α/σ and the gaps g_i = y − x^i, the exponents of the posterior are, up to
what is common to all, and with no cancellation,

    e_i = −½ρ²‖g_i‖² − ρ⟨ε, g_i⟩,        y − E[x_0 | x_t] = Σ_i e^{e_i} g_i / Σ_i e^{e_i}.                            (2)

The example itself has e = 0 and g = 0: it counts in the denominator only.

**Held-out images** under the same denoiser, y not among the data, have no such term. Where memorizing begins, the two errors part: J_t
falls to 0, the other rises towards the squared distance of the nearest example.

**Large sets.** The two sums of (2) over N examples are estimated from n of them: the k nearest to y, each with weight 1, and L others, drawn
at random from the M that remain, each with weight M/L. Both sums are then unbiased for every x_t; their quotient is not. Xu et al. draw
all n at random (k = 0) and keep y itself with its own weight, without which the estimate would be far too large; nearest examples
do the same for those that compete with y at low noise.

**Bias.** Where no single weight dominates, a quotient of unbiased sums is biased by b(1/L − 1/M) to first order. The two halves of the
random part give estimates of (2) with bias b(2/L − 1/M), so that

    bias ≈ (1 − L/M) (mean over both halves − the whole)                                                           (3)

is estimated with its own standard error. It is positive at high noise, where too few examples make the mean of the posterior err. At
lower noise, where few examples compete and may have been missed, it may be negative and (3) is too small. It shrinks to 0 as n
reaches N, where nothing is random but the noise.

**Standard error.** Two replicates for each example, with noise and random part of their own: `estimator.replicates`, eq. (1). Both ends
are fair, but where J_t is all but 0 it hangs on draws of ε that hardly ever occur, and the interval may miss it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_ref.estimator.design import uniform
from ddpm_ref.estimator.replicates import degrees_of_freedom, two_stage_error
from ddpm_ref.noise import NoiseStream, Use
from ddpm_ref.oracle.base import check_examples
from ddpm_ref.schedule import Schedule, check_schedule
from ddpm_ref.validation import check_count, check_steps

_GAPS = 1 << 22  # numbers in one block of gaps: 32 MiB
_REPLICATES = 2


@dataclass(frozen=True, eq=False)
class DenoiserError:
    """Mean squared error of the best denoiser of a data set at K steps, summed over dims, in squared units of x0.

    Attributes:
        value: E‖y − E[x0 | x_t]‖² `[K]`.
        stderr: its standard error `[K]`.
        degrees_of_freedom: of the standard error `[K]`, for Student's t.
        bias: estimated bias of `value` from the random part of a subset, eq. (3) `[K]`; 0 where all data were used.
        bias_stderr: standard error of `bias` `[K]`.
        examples: how many examples y were asked about.
        used: how many of the data entered each answer.
        dims: D.
    """

    value: Tensor
    stderr: Tensor
    degrees_of_freedom: Tensor
    bias: Tensor
    bias_stderr: Tensor
    examples: int
    used: int
    dims: int


def optimal_loss(
    data: Tensor,
    t: Tensor,
    schedule: Schedule,
    *,
    images: Tensor | None = None,
    examples: int | None = None,
    subset: int | None = None,
    nearest: int | None = None,
    seed: int = 0,
) -> DenoiserError:
    """The least training loss at the steps t, or the error of that same denoiser on other images; eqs. (1), (2).

    Costs `examples` × 2 × (number of data, or `subset`) × D × K multiplications. Multiply by `weight(…, parameterization="x0")`/D for
    the loss in a weighting.

    Args:
        data: the data set `[N, *dims]`.
        t: K steps 1 … T, integer `[K]`.
        schedule: the noise schedule.
        images: held-out images `[M, *dims]` to denoise instead of the data themselves.
        examples: how many of the data (or images), chosen at random; all of them by default.
        subset: how many of the data stand for all in each answer; all of them by default.
        nearest: how many of the subset are the nearest; half by default, 0 is the estimator of Xu et al.
        seed: of the choice of examples, the noise and the random part.

    Returns:
        `DenoiserError`, float64 on the CPU.

    Raises:
        ValueError: no data, values that are not finite, dims that differ, a t or a number out of range.
        TypeError: integer data, or arguments of another type.
    """
    check_examples(data)
    check_schedule(schedule)
    check_steps(t, schedule.T)
    asked = data if images is None else images
    check_examples(asked)
    if asked.shape[1:] != data.shape[1:]:
        raise ValueError(
            f"images has shape {list(asked.shape)}, data {list(data.shape)}: examples of one shape are expected"
        )
    stream = NoiseStream(seed)
    chosen = _choose(len(asked), examples, stream)
    survey = _Survey(
        _rows(data),
        _rows(asked)[chosen],
        None if images is not None else chosen,
        torch.exp(0.5 * schedule.log_snr[t.cpu().long()])[:, None],
        *_shares(len(data) - (images is None), subset, nearest),
        stream,
    )
    return survey.run(len(asked))


@dataclass(frozen=True, eq=False)
class _Sums:
    """The two sums of (2) for R draws of noise and K levels, as e^{−ρ·low} times what is held.

    Attributes:
        pull: the numerator `[R, K, D]`.
        mass: the denominator `[R, K, 1]`.
        low: −e/ρ of the heaviest example `[R, K, 1]`.
    """

    pull: Tensor
    mass: Tensor
    low: Tensor

    def plus(self, other: "_Sums", factor: float, ratio: Tensor) -> "_Sums":
        """Both together, the other's weights times a factor; ratio is ρ `[K, 1]`."""
        low = torch.minimum(self.low, other.low)
        mine = torch.exp(ratio * (low - self.low))
        theirs = factor * torch.exp(ratio * (low - other.low))
        return _Sums(
            mine * self.pull + theirs * other.pull, mine * self.mass + theirs * other.mass, low
        )

    def of(self, draw: int) -> "_Sums":
        """Those of one draw of noise, R = 1."""
        one = slice(draw, draw + 1)
        return _Sums(self.pull[one], self.mass[one], self.low[one])

    def squared_error(self) -> Tensor:
        """‖y − E[x0 | x_t]‖² `[R, K]`."""
        return (self.pull / self.mass).square().sum(dim=2)


@dataclass(frozen=True, eq=False)
class _Survey:
    """One run: examples `asked` `[m, D]` against `data` `[N, D]`; `own` says which of the data each of them is."""

    data: Tensor
    asked: Tensor
    own: Tensor | None
    ratio: Tensor
    nearest: int
    random: int
    stream: NoiseStream

    def run(self, population: int) -> DenoiserError:
        """Ask about every example twice."""
        rows = torch.arange(len(self.asked)).split(max(1, _GAPS // len(self.data)))
        found = [answer for some in rows for answer in self._answers(some)]
        value, bias = (torch.stack(column) for column in zip(*found, strict=True))
        columns, many = value.unbind(dim=2), len(value)
        bias = bias.mean(dim=1)
        return DenoiserError(
            value=value.mean(dim=(0, 1)),
            stderr=_vector(two_stage_error(column, population) for column in columns),
            degrees_of_freedom=_vector(degrees_of_freedom(c, population) for c in columns),
            bias=bias.mean(dim=0),
            bias_stderr=bias.std(dim=0, correction=min(1, many - 1)) / math.sqrt(many),
            examples=many,
            used=self.nearest + self.random + (self.own is not None),
            dims=self.data.shape[1],
        )

    def _answers(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """`_answer` for consecutive rows, whose random numbers are drawn together."""
        first, shape = int(rows[0]), (len(rows), self.data.shape[1])
        noise = torch.stack(
            [
                self.stream.normal(shape, step=replicate, first_index=first, dtype=torch.float64)
                for replicate in range(_REPLICATES)
            ],
            dim=1,
        )
        keys = [self._keys(first, len(rows), replicate) for replicate in range(_REPLICATES)]
        for k, row in enumerate(rows.tolist()):
            yield self._answer(row, noise[k], [key[k] for key in keys])

    def _answer(self, row: int, noise: Tensor, keys: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Squared errors `[2, K]` for two draws of noise `[2, D]`, and their part of the bias (3) `[2, K]`."""
        certain, rest = self._partition(row)
        known = [(part, 1.0) for part in self._parts(row, certain, noise)]
        if self.own is not None:
            known.append((self._itself(), 1.0))
        if self.random == 0:
            error = self._error(known)
            return error, torch.zeros_like(error)
        both = [
            self._completed(
                row,
                rest[key.argsort(stable=True)[: self.random]],
                len(rest) / self.random,
                eps[None],
                [(p.of(k), f) for p, f in known],
            )
            for k, (key, eps) in enumerate(zip(keys, noise, strict=True))
        ]
        error, bias = (torch.stack(column) for column in zip(*both, strict=True))
        return error, bias

    def _completed(
        self, row: int, drawn: Tensor, scale: float, noise: Tensor, known: list[tuple[_Sums, float]]
    ) -> tuple[Tensor, Tensor]:
        """Squared error `[K]` with a random part that stands for `scale` times as many, and its part of the bias (3) `[K]`."""
        halves = drawn.tensor_split(2)
        parts = [list(self._parts(row, half, noise)) for half in halves]
        error = self._error([*known, *((p, scale) for part in parts for p in part)])[0]
        by_half = [
            self._error([*known, *((p, scale * len(drawn) / len(half)) for p in part)])[0]
            for part, half in zip(parts, halves, strict=True)
        ]
        return error, (1 - 1 / scale) * (torch.stack(by_half).mean(dim=0) - error)

    def _partition(self, row: int) -> tuple[Tensor, Tensor]:
        """Indices of the data that count for certain, and of those of which a random part stands for all."""
        others = torch.arange(len(self.data))
        if self.own is not None:
            others = others[others != self.own[row]]
        if self.random == 0:
            return others, others[:0]
        distance = (self.data[others] - self.asked[row]).square().sum(dim=1)
        order = distance.argsort(stable=True)
        return others[order[: self.nearest]], others[order[self.nearest :]]

    def _keys(self, first: int, count: int, replicate: int) -> Tensor:
        """Random keys of the data that are left to chance, `[count, n]`; the least are drawn, without replacement."""
        left = len(self.data) - (self.own is not None) - self.nearest if self.random else 0
        return self.stream.uniform(
            (count, left), use=Use.ORDER, step=1 + replicate, first_index=first, dtype=torch.float64
        )

    def _itself(self) -> _Sums:
        """The example's own weight 1 at the gap 0."""
        shape = (_REPLICATES, len(self.ratio))
        nothing = torch.zeros(*shape, 1, dtype=torch.float64)
        return _Sums(nothing.expand(*shape, self.data.shape[1]), torch.ones_like(nothing), nothing)

    def _parts(self, row: int, indices: Tensor, noise: Tensor) -> Iterator[_Sums]:
        """(2) over some of the data for noise `[R, D]`, a block at a time."""
        for block in indices.split(max(1, _GAPS // self.data.shape[1])):
            if len(block) == 0:
                continue
            gaps = self.asked[row] - self.data[block]
            along = (gaps @ noise.T).T[:, None]  # [R, 1, n]
            height = 0.5 * self.ratio * gaps.square().sum(dim=1) + along  # −e/ρ [R, K, n]
            low = height.amin(dim=2, keepdim=True)
            share = torch.exp(-self.ratio * (height - low))
            yield _Sums(share @ gaps, share.sum(dim=2, keepdim=True), low)

    def _error(self, parts: list[tuple[_Sums, float]]) -> Tensor:
        """Squared errors `[R, K]` of all parts together, each with its factor."""
        (first, factor), *rest = parts
        total = _Sums(factor * first.pull, factor * first.mass, first.low)
        for part, scale in rest:
            total = total.plus(part, scale, self.ratio)
        return total.squared_error()


def _vector(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _rows(data: Tensor) -> Tensor:
    return data.detach().cpu().double().reshape(len(data), -1)


def _choose(size: int, examples: int | None, stream: NoiseStream) -> Tensor:
    """Which of `size` examples are asked about, in random order."""
    many = size if examples is None else check_count("examples", examples, least=min(2, size))
    if many > size:
        raise ValueError(
            f"examples = {many}, but there are {size}: ask about all with examples=None"
        )
    return torch.argsort(uniform(stream, size, Use.ORDER, step=0), stable=True)[:many]


def _shares(others: int, subset: int | None, nearest: int | None) -> tuple[int, int]:
    """(nearest, random) of the data besides the example itself; without a random part all of them are near."""
    if subset is None or check_count("subset", subset, least=4) >= others:
        return others, 0
    near = subset // 2 if nearest is None else check_count("nearest", nearest, least=0)
    if near > subset - 2:
        raise ValueError(
            f"nearest = {near} of subset = {subset}; at least 2 are drawn at random: pass nearest={subset // 2}"
        )
    return near, subset - near
