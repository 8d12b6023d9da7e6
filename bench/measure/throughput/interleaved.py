r"""Which of several ways is faster: measured in alternation, in one process.

Two timings taken one after the other differ also because the machine changed in between: clock, heat, neighbours. So all
contenders take one turn per round, in a fresh random order each round, and only rounds are compared:

    ratio = median over rounds of the opponent / median over rounds of the candidate.                          (1)

Its 95 % interval is a paired percentile bootstrap: whole rounds are drawn with replacement, so that what a round has in
common cancels. Against the *fastest* of several opponents the minimum over opponents is taken inside each resample,

    ratio = min_k median(opponent_k) / median(candidate),                                                       (2)

so that the doubt about which of them is the fastest widens the interval.

**A turn** is: pause, one untimed call, then n timed calls between two readings of the clock. The pause lets the worker
threads of the contender before go to sleep (OpenMP's spin for milliseconds after their work, on cores that the next
contender needs); the untimed call wakes this contender's own and brings its data back into the caches. n is chosen once, so
that a turn lasts about `turn_seconds`. A result is dropped before the next call, so that memory is reused as in a training loop.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.record.statistics import LEVEL, Interval

Call = Callable[[], object]
Clock = Callable[[], float]

_RESAMPLES = 9999
_MOST_CALLS = 10_000


@dataclass(frozen=True)
class Timings:
    """Seconds per call, one value per round; index r of all contenders is the same round.

    Attributes:
        seconds: contender → seconds per call in each round.
        calls: contender → calls in a turn (n).
    """

    seconds: Mapping[str, tuple[float, ...]]
    calls: Mapping[str, int]

    def median(self, name: str) -> float:
        """Median seconds per call."""
        return float(np.median(self.seconds[name]))

    def fastest(self, names: Iterable[str]) -> str:
        """The name with the lowest median."""
        return min(names, key=self.median)


def interleave(
    contenders: Mapping[str, Call],
    *,
    rounds: int,
    seed: int = 0,
    turn_seconds: float = 0.01,
    pause: float = 0.02,
    clock: Clock = time.perf_counter,
    on_round: Callable[[], object] = lambda: None,
) -> Timings:
    """Time the contenders in alternation.

    Args:
        contenders: name → what to call; each must have been called (compiled, built, verified) before.
        rounds: turns of each contender.
        seed: of the order of turns.
        turn_seconds: how long the timed calls of a turn last, about.
        pause: seconds of silence before each turn; 0 where no worker threads can be spinning.
        clock: seconds; on an accelerator one that waits for the queued work.
        on_round: called after each round, for a progress bar.

    Raises:
        ValueError: no contender, or fewer than 2 rounds (no interval can be had from one).
    """
    if not contenders or rounds < 2:
        raise ValueError(
            f"{len(contenders)} contenders in {rounds} rounds: a comparison needs at least one "
            "contender and two rounds"
        )
    calls = {name: _calls(call, turn_seconds, clock) for name, call in contenders.items()}
    order, shuffle = list(contenders), random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(pause)
            seconds[name].append(_turn(contenders[name], calls[name], clock))
        on_round()
    return Timings({name: tuple(values) for name, values in seconds.items()}, calls)


def speed_ratio(
    timings: Timings, candidate: str, opponents: Sequence[str], *, seed: int = 0
) -> Interval:
    """How many times faster the candidate is than the fastest opponent; eqs. (1), (2).

    Raises:
        ValueError: no opponent.
    """
    if not opponents:
        raise ValueError("no opponent: name at least one contender to compare with")
    mine = np.asarray(timings.seconds[candidate])
    others = np.asarray([timings.seconds[name] for name in opponents])
    n = mine.size
    picks = np.random.default_rng(seed).integers(0, n, size=(_RESAMPLES, n))
    fastest = np.median(others[:, picks], axis=2).min(axis=0)
    ratios = fastest / np.median(mine[picks], axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    estimate = float(np.median(others, axis=1).min() / np.median(mine))
    method = f"paired percentile bootstrap over {n} rounds"
    return Interval(estimate, float(low), float(high), LEVEL, n, method)


def _turn(call: Call, calls: int, clock: Clock) -> float:
    call()
    start = clock()
    for _ in range(calls):
        call()
    return (clock() - start) / calls


def _calls(call: Call, turn_seconds: float, clock: Clock) -> int:
    """How many calls fill a turn, from the fastest of three trials after a warm one."""
    once = min(_turn(call, 1, clock) for _ in range(3))
    return max(1, min(_MOST_CALLS, round(turn_seconds / max(once, 1e-9))))
