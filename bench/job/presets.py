"""Three sizes of the main job. Everything that `ddpm-bench run` decides by itself is a number here.

| preset | data | for | takes |
|---|---|---|---|
| `quick` | digits, 8×8 | two CPU cores, a first look | within 10 minutes |
| `standard` | Fashion-MNIST, 28×28 | a GPU, or a patient CPU | minutes on a GPU, hours on a CPU |
| `full` | CIFAR-10, 32×32 | a GPU | hours |

`quick` shortens T, the network, the runs and the budgets of evaluation, never the design: the same arms on
the same number of paired seeds, and the learning rates from a grid.
"""

from dataclasses import dataclass, field

from bench.measure.study.design import WITH_V, WITHOUT_TIME, Design

_QUICK_CASES = (
    "(128x3x32x32 and not definition) or objective or training or sampler or zero or frechet"
)
"""Of the throughput suite what ends in a minute: not the large batch, not the slow definition."""

_WIDE_RANGE = {"first": 9.0, "last": -9.0}


@dataclass(frozen=True)
class ThroughputPlan:
    """How much is timed.

    Attributes:
        seconds: longest time for which one case is repeated.
        select: pytest's `-k` expression over the cases.
        shapes: of the contest against other ways of noising a batch, `BxCxHxW`; none leaves it out.
        rounds: turns of the contest.
    """

    seconds: float
    select: str = ""
    shapes: tuple[str, ...] = ()
    rounds: int = 31


@dataclass(frozen=True)
class Preset:
    """One size of the main job.

    Attributes:
        purpose: one line for `--help`.
        data: the data set unless another is asked for.
        design: the study.
        throughput: what is timed.
    """

    purpose: str
    data: str
    design: Design
    throughput: ThroughputPlan = field(default_factory=lambda: ThroughputPlan(seconds=1.0))


PRESETS = {
    "quick": Preset(
        purpose="digits, 10 minutes on two cores",
        data="digits",
        design=Design(),
        throughput=ThroughputPlan(
            seconds=0.2, select=_QUICK_CASES, shapes=("128x3x32x32",), rounds=21
        ),
    ),
    "standard": Preset(
        purpose="Fashion-MNIST, with v-prediction; minutes on a GPU, hours on a CPU",
        data="fashion-mnist",
        design=Design(
            arms=(*WITH_V, *WITHOUT_TIME),
            rates=(3e-4, 1e-3, 3e-3),
            T=1000,
            schedule_options=_WIDE_RANGE,
            network_options={"base": 32, "multipliers": (1, 2, 2), "attention": (2,)},
            steps=10_000,
            tuning_steps=1000,
            batch_size=128,
            warmup_steps=200,
            ema_decay=0.999,
            points=16,
            probe_images=500,
            final_images=2000,
            bins=18,
            bound_images=2000,
            bound_evaluations=40_000,
            samples=5000,
            sampler_steps=100,
        ),
        throughput=ThroughputPlan(seconds=1.0, shapes=("256x3x64x64", "128x3x32x32"), rounds=61),
    ),
    "full": Preset(
        purpose="CIFAR-10, five seeds, long runs; for a GPU",
        data="cifar10",
        design=Design(
            arms=(*WITH_V, *WITHOUT_TIME),
            seeds=(1, 2, 3, 4, 5),
            rates=(1e-4, 3e-4, 1e-3),
            T=1000,
            schedule_options=_WIDE_RANGE,
            network_options={
                "base": 64,
                "multipliers": (1, 2, 2, 2),
                "attention": (2, 3),
                "blocks": 2,
            },
            steps=60_000,
            tuning_steps=3000,
            batch_size=128,
            warmup_steps=1000,
            ema_decay=0.9995,
            points=20,
            probe_images=1000,
            final_images=10_000,
            bins=18,
            bound_images=10_000,
            bound_evaluations=200_000,
            samples=10_000,
            sampler_steps=250,
        ),
        throughput=ThroughputPlan(seconds=2.0, shapes=("256x3x64x64", "128x3x32x32"), rounds=61),
    ),
}
"""Preset by name."""
