"""The studies by name: which design on which data. A row here is all that a new study needs.

`outputs`, the 2 × 2 of outputs and weightings, exists in three sizes: on digits, Fashion-MNIST and CIFAR-10.
"""

from dataclasses import dataclass

from bench.measure.study.design import FACTORIAL, WITH_V, WITHOUT_TIME, Design
from bench.terminal.usage import unknown

_WIDE_RANGE = {"first": 9.0, "last": -9.0}


@dataclass(frozen=True)
class Study:
    """One design on one data set.

    Attributes:
        name: as presets and claims call it.
        data: name of the data set.
        design: what is run.
    """

    name: str
    data: str
    design: Design


_ROWS = (
    Study(
        "tiny",
        "digits",
        Design(
            arms=FACTORIAL,
            seeds=(1, 2),
            rates=(1e-2,),
            T=20,
            network_options={"base": 8, "multipliers": (1,), "attention": ()},
            steps=20,
            tuning_steps=2,
            batch_size=16,
            warmup_steps=2,
            points=2,
            probe_images=16,
            final_images=64,
            bins=4,
            bound_images=64,
            bound_evaluations=512,
            samples=128,
            sampler_steps=5,
            grid=10,
        ),
    ),
    Study("digits", "digits", Design()),
    Study(
        "fashion-28",
        "fashion-mnist",
        Design(
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
    ),
    Study(
        "cifar10",
        "cifar10",
        Design(
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
    ),
)

STUDIES = {row.name: row for row in _ROWS}
"""Study by name."""


def study(name: str) -> Study:
    """The study of that name.

    Raises:
        UsageError: there is none; the nearest are named.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    return STUDIES[name]
