"""Five sizes of the main job. Everything that `ddpm-bench run` decides by itself is a number here.

| preset | data | for | takes |
|---|---|---|---|
| `tiny` | digits, 8×8 | is everything installed? the figures mean nothing | half a minute |
| `quick` | digits, 8×8; vectors | two CPU cores, a first look | about 12 minutes |
| `toy` | vectors whose truth is exact | what a network's width costs each output | under an hour |
| `standard` | Fashion-MNIST, 16×16 | a patient CPU: five seeds, `--shard 1/5` … `5/5` | hours on a CPU |
| `full` | CIFAR-10, 32×32 | a GPU | hours |

`quick` shortens T, the network, the runs and the budgets of evaluation, never the design: whole arms on paired seeds, and the learning
rates from a grid. Its three contrasts with three seeds are those of the article; every other claim that it settles has five.
"""

from dataclasses import dataclass, field, replace

from bench.measure.study.designs import Study, lean, study

_QUICK_CASES = (
    "(128x3x32x32 and not definition) or objective or training or sampler or zero or frechet"
)
"""Of the throughput suite what ends in a minute: not the large batch, not the slow definition."""


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
        studies: what is trained and compared, by name in `bench.measure.study.designs`.
        toys: further studies, of vectors, with their first three arms only.
        throughput: what is timed.
    """

    purpose: str
    studies: tuple[str, ...]
    toys: tuple[str, ...] = ()
    throughput: ThroughputPlan = field(default_factory=lambda: ThroughputPlan(seconds=1.0))

    def rows(self, data: str | None = None) -> tuple[Study, ...]:
        """The studies; those of images on `data`, where it is given."""
        whole = tuple(
            replace(row, data=data) if data and row.design.judge == "images" else row
            for row in map(study, self.studies)
        )
        return whole + tuple(lean(study(name), arms=3, seeds=5) for name in self.toys)


PRESETS = {
    "tiny": Preset(
        purpose="is everything installed? seconds of training, figures without meaning",
        studies=("tiny",),
        throughput=ThroughputPlan(seconds=0.02, select="128x3x32x32 and native and not short"),
    ),
    "quick": Preset(
        purpose="digits, the linear bottleneck and a toy in 2 and 512 dimensions; about 12 minutes on two cores",
        studies=("digits",),
        toys=("linear", "jit-2", "jit-512"),
        throughput=ThroughputPlan(
            seconds=0.2, select=_QUICK_CASES, shapes=("128x3x32x32",), rounds=21
        ),
    ),
    "toy": Preset(
        purpose="what a network's width costs each output, on data whose truth is exact; an hour on two cores",
        studies=(
            "linear",
            *(f"jit-{size}" for size in (2, 8, 16, 512)),
            *(
                f"capacity-{size}-{width}"
                for size in (16, 64, 256, 512)
                for width in (8, 32, 128, 256)
            ),
        ),
        throughput=ThroughputPlan(seconds=0.2, select=_QUICK_CASES),
    ),
    "standard": Preset(
        purpose="Fashion-MNIST 16×16, three outputs × three weightings, five seeds; hours on a CPU, in shards",
        studies=("fashion-16",),
        throughput=ThroughputPlan(seconds=1.0, shapes=("256x3x64x64", "128x3x32x32"), rounds=61),
    ),
    "full": Preset(
        purpose="CIFAR-10, five seeds, long runs; for a GPU",
        studies=("cifar10",),
        throughput=ThroughputPlan(seconds=2.0, shapes=("256x3x64x64", "128x3x32x32"), rounds=61),
    ),
}
"""Preset by name."""
