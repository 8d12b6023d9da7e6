r"""Is the noise normal, and independent of all its neighbours? Tests on up to a billion numbers, streamed.

The stream is drawn in pieces of 2²⁰ numbers, each from steps and samples of its own, with the fastest kernel that has the
definition's bits; nothing is kept but sums. Every test ends in a p-value:

- **Moments** of order 1 … 8: the mean of z^k against (k−1)!! or 0, in standard errors √(((2k−1)!! − (k−1)!!²)/n).
- **Kolmogorov–Smirnov** of all numbers together: the greatest |F_n − Φ| over 2¹⁶ quantiles, against Kolmogorov's law.
- **Anderson–Darling** of every piece: A² against its limit law (Anderson & Darling 1952, eq. 4.35), then the p-values of all
  pieces against the uniform law; the same with the KS distance of every piece.
- **Tails**: how many numbers lie beyond 3, 4, 5, 5.5 and 6 σ, against the binomial law, and the greatest of all.
- **Correlation** of neighbours, of z and of z² (a shared radius or a flipped bit shows there): elements at a distance, samples,
  steps and seeds one apart, keys that differ in their highest bit, other uses. n products have a mean within √(1/n), or
  √(4/n) for squares.

With m tests the whole passes where every p ≥ 1e-3/m: a good generator fails one run in a thousand.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats
from torch import Tensor

from ddpm_ref.kernels import fast_normal
from ddpm_ref.noise import NoiseStream, Use

PIECE = 1 << 20
"""Numbers drawn at a time."""
LEVEL = 1e-3
"""Probability that a perfect generator fails the whole."""

_ROWS = 256
_QUANTILES = 1 << 16
_ORDERS = range(1, 9)
_TAILS = (3.0, 4.0, 5.0, 5.5, 6.0)
_LAGS = (1, 2, 3, 4, 8, 15, 16, 17, 32, 48, 64, 128, 1024)

Draw = Callable[[int], Tensor]
"""Piece number → float32 `[rows, numbers]`."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one test.

    Attributes:
        name: what was tested.
        statistic: its test statistic.
        expected: what the statistic is near to for perfect noise, in words.
        p_value: probability of a statistic at least as far off, for perfect noise.
    """

    name: str
    statistic: float
    expected: str
    p_value: float


@dataclass
class _Sums:
    """All that is kept of the numbers."""

    count: int = 0
    pieces: int = 0
    powers: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(_ORDERS)))
    below: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_QUANTILES - 1, np.int64))
    beyond: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_TAILS), np.int64))
    anderson_darling: list[float] = field(default_factory=list)
    kolmogorov: list[float] = field(default_factory=list)
    greatest: float = 0.0
    products: dict[str, list[list[float]]] = field(default_factory=dict)


def examine(
    count: int, seed: int = 20261123, follow: Callable[[range], Iterable[int]] = iter
) -> list[Finding]:
    """Draw at least `count` numbers and test them.

    Args:
        count: how many numbers to draw; rounded up to whole pieces of `PIECE`.
        seed: of the stream under test.
        follow: passes the piece numbers on, to show progress.
    """
    streams = _streams(seed)
    sums = _Sums()
    for piece in follow(range(-(-count // PIECE))):
        drawn = {name: draw(piece).double().flatten().numpy() for name, draw in streams.items()}
        values = drawn.pop("itself")
        _add_distribution(sums, values)
        _add_products(sums, values, drawn)
    return [*_moments(sums), *_whole_distribution(sums), *_tails(sums), *_correlations(sums)]


def passed(findings: list[Finding]) -> bool:
    """Whether no p-value is below `LEVEL` divided by the number of tests."""
    return all(finding.p_value >= LEVEL / len(findings) for finding in findings)


def anderson_darling_tail(statistic: float) -> float:
    """P(A² ≥ statistic) in the limit of many numbers, for a law that is fully given (Anderson & Darling 1952, eq. 4.35).

    P(A² < z) = (√(2π)/z) Σ_j binom(−½, j)(4j+1) e^{−c_j} ∫₀^∞ exp(z/(8(w²+1)) − c_j w²) dw, c_j = (4j+1)²π²/(8z).
    """
    z, total = max(statistic, 0.05), 0.0

    def term(j: int) -> float:
        c = (4 * j + 1) ** 2 * math.pi**2 / (8 * z)
        integral, _ = integrate.quad(
            lambda w: math.exp(z / (8 * (w * w + 1)) - c * (w * w + 1)), 0, math.inf
        )
        return float(special.binom(-0.5, j) * (4 * j + 1) * integral)

    total = math.fsum(term(j) for j in range(12))
    return min(1.0, max(0.0, 1 - math.sqrt(2 * math.pi) / z * total))


def _streams(seed: int) -> dict[str, Draw]:
    """The stream under test and those that differ from it in one word of key or counter."""

    def stream(seed: int = seed, samples: int = 0, steps: int = 0, use: Use = Use.NOISE) -> Draw:
        def draw(piece: int) -> Tensor:
            return fast_normal(
                NoiseStream(seed),
                (_ROWS, PIECE // _ROWS),
                step=piece // 16 + steps,
                first_index=piece % 16 * 2 * _ROWS + samples,
                use=use,
            )

        return draw

    return {
        "itself": stream(),
        "next sample": stream(samples=1),
        "sample + 2^32": stream(samples=1 << 32),
        "next step": stream(steps=1),
        "next seed": stream(seed=seed + 1),
        "seed, one high bit": stream(seed=seed ^ (1 << 62)),
        "another use": stream(use=Use.SAMPLER),
    }


def _add_distribution(sums: _Sums, values: NDArray[np.float64]) -> None:
    ordered = np.sort(values)
    n = ordered.size
    sums.count += n
    sums.pieces += 1
    power = np.ones_like(ordered)
    for k in range(len(_ORDERS)):
        power *= ordered
        sums.powers[k] += power.mean()
    sums.below += np.searchsorted(ordered, _edges(), side="right")
    sums.beyond += [int(np.count_nonzero(np.abs(ordered) > sigma)) for sigma in _TAILS]
    sums.greatest = max(sums.greatest, float(-ordered[0]), float(ordered[-1]))
    rank = np.arange(1, n + 1)
    logarithms = special.log_ndtr(ordered) + special.log_ndtr(-ordered[::-1])
    sums.anderson_darling.append(float(-n - np.mean((2 * rank - 1) * logarithms)))
    below = special.ndtr(ordered)
    sums.kolmogorov.append(float(max(np.max(rank / n - below), np.max(below - (rank - 1) / n))))


def _add_products(
    sums: _Sums, values: NDArray[np.float64], others: dict[str, NDArray[np.float64]]
) -> None:
    squares = values * values - 1
    for lag in _LAGS:
        _add_product(sums, f"{lag} apart", 0, values[:-lag], values[lag:])
        _add_product(sums, f"{lag} apart", 1, squares[:-lag], squares[lag:])
    for name, other in others.items():
        _add_product(sums, name, 0, values, other)
        _add_product(sums, name, 1, squares, other * other - 1)


def _add_product(
    sums: _Sums, name: str, power: int, one: NDArray[np.float64], other: NDArray[np.float64]
) -> None:
    entry = sums.products.setdefault(name, [[0.0, 0.0], [0.0, 0.0]])[power]
    entry[0] += one.size
    entry[1] += float(one @ other)


def _edges() -> NDArray[np.float64]:
    edges: NDArray[np.float64] = special.ndtri(np.arange(1, _QUANTILES) / _QUANTILES)
    return edges


def _moments(sums: _Sums) -> Iterator[Finding]:
    for order, total in zip(_ORDERS, sums.powers, strict=True):
        mean = _double_factorial(order - 1) if order % 2 == 0 else 0
        variance = _double_factorial(2 * order - 1) - mean**2
        found = float(total) / sums.pieces
        z = (found - mean) / math.sqrt(variance / sums.count)
        yield Finding(f"mean of z^{order}", found, str(mean), _two_sided(z))


def _whole_distribution(sums: _Sums) -> Iterator[Finding]:
    share = np.arange(1, _QUANTILES) / _QUANTILES
    distance = float(np.max(np.abs(sums.below / sums.count - share)))
    p = float(special.kolmogorov(distance * math.sqrt(sums.count)))
    near = f"{0.87 / math.sqrt(sums.count):.1e}"
    yield Finding("Kolmogorov-Smirnov, all numbers", distance, near, p)
    p_values = {
        "Anderson-Darling": [anderson_darling_tail(value) for value in sums.anderson_darling],
        "Kolmogorov-Smirnov": [float(stats.kstwo.sf(value, PIECE)) for value in sums.kolmogorov],
    }
    for name, found in p_values.items():
        result = stats.kstest(found, "uniform")
        yield Finding(
            f"{name}, p-values of {len(found)} pieces uniform",
            float(result.statistic),
            f"{0.87 / math.sqrt(len(found)):.2g}",
            float(result.pvalue),
        )


def _tails(sums: _Sums) -> Iterator[Finding]:
    for sigma, found in zip(_TAILS, sums.beyond.tolist(), strict=True):
        share = math.erfc(sigma / math.sqrt(2))
        law = stats.binom(sums.count, share)
        p = min(1.0, 2 * float(min(law.cdf(found), law.sf(found - 1))))
        yield Finding(f"beyond {sigma} sigma", found, f"{share * sums.count:.6g}", p)
    beyond = math.erfc(sums.greatest / math.sqrt(2))
    p_greatest = -math.expm1(sums.count * math.log1p(-beyond))
    p = 2 * min(p_greatest, 1 - p_greatest)
    yield Finding("greatest |z|", sums.greatest, f"{_median_greatest(sums.count):.3g}", p)


def _correlations(sums: _Sums) -> Iterator[Finding]:
    for name, entries in sums.products.items():
        for label, (count, total), variance in zip(("z", "z^2"), entries, (1.0, 4.0), strict=True):
            z = total / math.sqrt(variance * count)
            found = total / count / math.sqrt(variance)
            yield Finding(f"correlation of {label}, {name}", found, "0", _two_sided(z))


def _median_greatest(count: int) -> float:
    """Median of the greatest |z| among `count`: (1 − P)^count = ½ with P = erfc(z/√2)."""
    return float(math.sqrt(2) * special.erfcinv(-math.expm1(-math.log(2) / count)))


def _double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))
