"""`bench.measure.throughput.interleaved` on a clock that does what it is told: known times in, known ratios out."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from bench.measure.throughput.interleaved import Timings, interleave, speed_ratio

pytestmark = pytest.mark.any_torch


class World:
    """A clock that moves only when somebody works, and a machine that slows down round by round."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now, self.drift = 0.0, drift
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def worker(self, name: str, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.log.append(name)
            self.now += seconds * (1 + self.drift * len(self.log))

        return work


def run(world: World, costs: dict[str, float], **options: object) -> Timings:
    contenders = {name: world.worker(name, cost) for name, cost in costs.items()}
    return interleave(contenders, clock=world.clock, pause=0.0, **options)


def test_seconds_per_call_are_what_each_contender_costs() -> None:
    timings = run(World(), {"a": 0.002, "b": 0.03, "c": 0.0007}, rounds=5, turn_seconds=0.014)
    assert timings.calls == {"a": 7, "b": 1, "c": 20}  # turn / cost, at least one
    for name, cost in {"a": 0.002, "b": 0.03, "c": 0.0007}.items():
        assert timings.seconds[name] == pytest.approx([cost] * 5)
    assert timings.fastest(["a", "b"]) == "a"


def test_every_contender_has_one_turn_per_round_in_changing_order() -> None:
    world, names, rounds = World(), ("a", "b", "c", "d"), 11
    run(world, dict.fromkeys(names, 0.01), rounds=rounds, turn_seconds=0.01)
    measured = world.log[-rounds * len(names) * 2 :]  # a turn is one untimed and one timed call
    turns = [measured[k : k + 8 : 2] for k in range(0, len(measured), 8)]
    assert len(turns) == rounds
    assert all(sorted(turn) == sorted(names) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 5


def test_the_same_seed_gives_the_same_order() -> None:
    first, second, other = World(), World(), World()
    for world, seed in ((first, 3), (second, 3), (other, 4)):
        run(world, {"a": 0.01, "b": 0.01, "c": 0.01}, rounds=7, seed=seed)
    assert first.log == second.log != other.log


def test_a_machine_that_slows_down_does_not_change_the_ratio() -> None:
    timings = run(World(drift=1e-2), {"a": 1e-3, "b": 4e-3}, rounds=41, turn_seconds=1e-3)
    assert max(timings.seconds["a"]) > 2 * min(timings.seconds["a"])
    ratio = speed_ratio(timings, "a", ["b"])
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 4 < ratio.high
    # unpaired resampling would have an interval several times as wide as this
    assert (ratio.high - ratio.low) / ratio.estimate < 0.1


def test_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    generator, truth, rounds, trials = np.random.default_rng(11), 3.0, 31, 200
    covered = 0
    for _ in range(trials):
        common = generator.lognormal(0, 0.3, rounds)
        mine = common * generator.lognormal(0, 0.1, rounds)
        other = truth * common * generator.lognormal(0, 0.1, rounds)
        timings = Timings({"a": tuple(mine), "b": tuple(other)}, {"a": 1, "b": 1})
        ratio = speed_ratio(timings, "a", ["b"])
        covered += (ratio.low or math.inf) <= truth <= (ratio.high or -math.inf)
    # 95 % of 200 within 4 binomial standard errors (6 %) below; the bootstrap may be conservative
    assert covered / trials > 0.89


def test_against_several_the_fastest_counts() -> None:
    timings = Timings(
        {"a": (1.0, 1.0, 1.0), "slow": (9.0, 9.0, 9.0), "fast": (5.0, 5.0, 5.0)},
        dict.fromkeys(("a", "slow", "fast"), 1),
    )
    ratio = speed_ratio(timings, "a", ["slow", "fast"])
    assert (ratio.low, ratio.estimate, ratio.high) == (5.0, 5.0, 5.0)


def test_doubt_about_which_is_fastest_widens_the_interval_downwards() -> None:
    generator = np.random.default_rng(7)
    noisy = {f"b{k}": tuple(generator.lognormal(1, 0.5, 31)) for k in range(5)}
    timings = Timings({"a": (1.0,) * 31, **noisy}, dict.fromkeys([*noisy, "a"], 1))
    alone = speed_ratio(timings, "a", [timings.fastest(noisy)])
    among = speed_ratio(timings, "a", list(noisy))
    assert among.estimate == alone.estimate
    assert (among.low or 0) <= (alone.low or 0)
    assert (among.high or 0) < (alone.high or 0)


@pytest.mark.parametrize(("contenders", "rounds"), [({}, 5), ({"a": lambda: None}, 1)])
def test_too_little_to_compare_is_refused(contenders: dict, rounds: int) -> None:
    with pytest.raises(ValueError, match="at least one contender and two rounds"):
        interleave(contenders, rounds=rounds)
    with pytest.raises(ValueError, match="no opponent"):
        speed_ratio(Timings({"a": (1.0,)}, {"a": 1}), "a", [])
