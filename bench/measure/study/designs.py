"""The studies by name: which design on which data. A row here is all that a new study needs.

| studies | question |
|---|---|
| `digits`, `fashion-16`, `cifar10` | outputs × weightings in three sizes |
| `objectives` | weightings, schedules and ways to draw t, on digits with an MLP |
| `learned-variance` | bits/dim with the reverse variance fixed and learned, same data and network as `objectives` |
| `linear` | the price of a bottleneck on linear networks, one for each level of noise (`ddpm_ref.oracle.rank`) |
| `capacity-D-W` | the same on ReLU networks of width W that share their weights over levels, on a Gaussian of D dimensions |
| `photos-N`, `sampler-steps` | patches of photographs: outputs by ambient dimension, and by the number of sampler steps |
| `jit-D`, `jit-D-scaled` | the toy of Li & He 2025: a spiral in a plane of R^D, width 256, also without a time input; with noise scaled to the data |
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.measure.study.design import (
    BLIND,
    FACTORIAL,
    WITH_V,
    WITHOUT_TIME,
    Arm,
    Design,
    Entries,
)
from bench.record.claims import CLAIMS
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


_LEARNED, _EDM, _SCALED = "learned skip", "EDM", "noise scaled"
_FIVE_SEEDS = (1, 2, 3, 4, 5)
_OUTPUTS = ("x0", "eps", "v")
_SPIRAL_VARIANCE = 0.47
"""tr Σ of `spiral:D`, to two digits, from which the noise of `noise scaled` follows."""


def _linear() -> Study:
    plain = (Arm("x0", "simple_x0"), Arm("eps", "simple"), Arm("v", "simple_v"))
    design = Design(
        arms=(*plain, Arm("eps", "simple", _LEARNED), Arm("x0", "simple_x0", _LEARNED)),
        variants={_LEARNED: {"skip": "learned"}},
        judge="vectors",
        seeds=_FIVE_SEEDS,
        rates=(3e-2,),
        T=6,
        schedule_options={"first": 4.0, "last": -4.0},
        network="low-rank",
        network_options={"rank": 2},
        training={"decay_steps": 2500},
        steps=2500,
        tuning_steps=100,
        batch_size=256,
        ema_decay=0.995,
        points=0,
        bins=6,
        bound_images=0,
        samples=0,
        final_images=64,
        grid=0,
    )
    return Study("linear", "subspace:16", design)


def _capacity(size: int, width: int) -> Study:
    plain = tuple(Arm(output, "simple_v") for output in _OUTPUTS)
    design = Design(
        arms=(
            *plain,
            Arm("eps", "simple_v", _LEARNED),
            Arm("x0", "simple_v", _LEARNED),
            Arm("x0", "simple_v", _EDM),
        ),
        variants={
            _LEARNED: {"skip": "learned"},
            _EDM: {"skip": "edm", "skip_options": {"sigma_data": 0.5}},
        },
        judge="vectors",
        rates=(3e-3,),
        T=100,
        schedule_options={"first": 5.0, "last": -5.0},
        network="mlp",
        network_options={"width": width, "depth": 3},
        training={"decay_steps": 800},
        steps=800,
        tuning_steps=100,
        batch_size=128,
        ema_decay=0.98,
        points=0,
        bins=10,
        bound_images=0,
        samples=0,
        grid=0,
    )
    return Study(f"capacity-{size}-{width}", f"subspace:{size}", design)


def _jit(size: int) -> Study:
    plain = tuple(Arm(output, "simple_v") for output in _OUTPUTS)
    shift = -math.log(_SPIRAL_VARIANCE / size)
    scaled: Entries = {"schedule_options": {"first": 9.0 + shift, "last": -9.0 + shift}}
    large = tuple(Arm(output, "simple_v", _SCALED) for output in ("eps", "v")) if size > 16 else ()
    design = Design(
        arms=(*plain, Arm("x0", "simple_v", BLIND), *large),
        variants={BLIND: {"network_options": {"time_input": False}}, _SCALED: scaled},
        judge="vectors",
        seeds=_FIVE_SEEDS,
        rates=(1e-3,),
        T=100,
        schedule_options={"first": 9.0, "last": -9.0},
        judged=(8.0, -8.0),
        network="mlp",
        network_options={"width": 256, "depth": 5},
        steps=1000,
        tuning_steps=100,
        batch_size=128,
        ema_decay=0.99,
        points=0,
        bins=8,
        bound_images=0,
        samples=500,
        sampler_steps=50,
        grid=0,
    )
    return Study(f"jit-{size}", f"spiral:{size}", design)


def _fashion() -> Study:
    """Three outputs × three weightings and two more, five seeds; a U-Net that sees the image in squares of 2 × 2."""
    weightings = ("simple", "simple_x0", "simple_v")
    arms = tuple(
        Arm(output, weighting) for output in ("eps", "x0", "v") for weighting in weightings
    )
    design = Design(
        arms=(*arms, Arm("x0", "min_snr"), Arm("eps", "elbo")),
        seeds=_FIVE_SEEDS,
        rates=(3e-3, 1e-2),
        T=1000,
        schedule_options=_WIDE_RANGE,
        network_options={"base": 16, "multipliers": (1, 2), "attention": (1,), "patch": 2},
        steps=6000,
        tuning_steps=500,
        warmup_steps=200,
        ema_decay=0.999,
        points=12,
        probe_images=256,
        final_images=2000,
        bins=18,
        bound_images=2000,
        bound_evaluations=20_000,
        samples=10_000,
        features=("effnet-lite0.7", "pca64"),
    )
    return Study("fashion-16", "fashion-mnist:16", design)


def _jit_scaled(size: int) -> Study:
    """The toy with noise scaled to √(tr Σ/D): the data have mean variance 1 in every direction of R^D."""
    row = _jit(size)
    scale = math.sqrt(size / _SPIRAL_VARIANCE)
    plain = tuple(arm for arm in row.design.arms if not arm.variant)
    return Study(f"jit-{size}-scaled", row.data, replace(row.design, arms=plain, scale=scale))


def _photos(side: int) -> Study:
    """Patches of photographs with an MLP of width 256: real data whose ambient dimension 3·side² is a dial."""
    design = Design(
        arms=tuple(Arm(output, "simple_v") for output in _OUTPUTS),
        rates=(3e-4, 1e-3),
        schedule_options=_WIDE_RANGE,
        judged=(8.0, -8.0),
        network="mlp",
        network_options={"width": 256, "depth": 5},
        steps=1500,
        tuning_steps=150,
        batch_size=128,
        points=4,
        bound_images=100,
        bound_evaluations=800,
        samples=min(500, 30_000 // side**2),
        grid=20,
    )
    return Study(f"photos-{side}", f"photos:{side}", design)


def _sampler_steps() -> Study:
    """Only-ε against only-x₀ by the number of sampler steps, on small patches, N = 2,000."""
    design = replace(
        _photos(4).design,
        arms=(Arm("eps", "simple"), Arm("x0", "simple_x0")),
        seeds=_FIVE_SEEDS,
        samples=2000,
        sampler_steps=50,
        sweep=(5, 10, 25, 100),
        features=("effnet-lite0.7", "pca64"),
    )
    return Study("sampler-steps", "photos:4", design)


_COSINE: Entries = {"schedule": "cosine", "schedule_options": {}}
_LAPLACE: Entries = {"timesteps": "laplace", "importance": "none"}
_PRECONDITIONED: Entries = {"skip": "edm", "skip_options": {"sigma_data": 1.0}}
"""With σ_data = 1 EDM's weight SNR + 1/σ_data² is `simple_v`; the digits' root mean square is 0.85."""
_OBJECTIVE_VARIANTS: Mapping[str, Entries] = {
    "cosine": _COSINE,
    "Laplace drawn": _LAPLACE,
    "Laplace as weight": {**_LAPLACE, "importance": "density"},
    _EDM: _PRECONDITIONED,
    "EDM, log-normal": {**_PRECONDITIONED, "timesteps": "log_normal", "importance": "none"},
    "even t": {"timesteps": "low-discrepancy"},
    "loss-aware t": {"timesteps": "loss_aware"},
}


def _objectives() -> Study:
    """Weightings, schedules and ways to draw t, with an MLP: cheap enough for five seeds of twenty arms."""
    arms = (
        *(Arm(output, "simple_v") for output in ("eps", "x0", "v")),
        *(Arm("x0", weighting) for weighting in ("simple", "simple_x0", "min_snr")),
        *(Arm("eps", weighting) for weighting in ("simple", "elbo")),
        *(Arm("eps", "elbo", variant) for variant in ("even t", "loss-aware t")),
        *(Arm(output, "simple", "cosine") for output in ("eps", "x0", "v")),
        Arm("v", "simple_v", "cosine"),
        *(Arm(output, "simple", "Laplace drawn") for output in ("eps", "x0")),
        Arm("x0", "simple", "Laplace as weight"),
        Arm("x0", "simple", _EDM),
        Arm("x0", "simple_v", "EDM, log-normal"),
    )
    design = Design(
        arms=arms,
        variants=_OBJECTIVE_VARIANTS,
        seeds=_FIVE_SEEDS,
        rates=(1e-3, 3e-3),
        judged=(6.0, -6.0),
        network="mlp",
        network_options={"width": 256, "depth": 4},
        steps=600,
        tuning_steps=150,
        batch_size=128,
        points=5,
        bound_evaluations=3000,
        features=("effnet-lite0.7", "pca64"),
        grid=20,
    )
    return Study("objectives", "digits", design)


def _learned_variance() -> Study:
    """The bound with the variance learned by the hybrid loss, against the fixed one of the same network."""
    variant = "learned variance"
    design = replace(
        _objectives().design,
        arms=(Arm("eps", "simple"), Arm("eps", "simple", variant)),
        variants={variant: {"variance": "learned"}},
    )
    return Study("learned-variance", "digits", design)


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
    _objectives(),
    _learned_variance(),
    _fashion(),
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
    _linear(),
    *(_capacity(size, width) for size in (16, 64, 256, 512) for width in (8, 32, 128, 256)),
    *(_jit(size) for size in (2, 8, 16, 512)),
    _jit_scaled(512),
    *(_photos(side) for side in (4, 8, 16, 32)),
    _sampler_steps(),
)

STUDIES = {row.name: row for row in _ROWS}
"""Study by name."""


def lean(row: Study, *, arms: int, seeds: int) -> Study:
    """The study with its first arms and seeds only; its runs are the same runs."""
    design = replace(row.design, arms=row.design.arms[:arms], seeds=row.design.seeds[:seeds])
    return replace(row, design=design)


def name_of(row: Study) -> str:
    """The study's name, if it is that study but for arms and seeds that are missing, and for feature maps that judge none of its claims."""
    known = STUDIES.get(row.name)
    if known is None or row.data != known.data:
        return ""
    free = ("arms", "seeds") if _judged_by_distance(row.name) else ("arms", "seeds", "features")
    whole = replace(row.design, **{name: getattr(known.design, name) for name in free})
    return row.name if whole == known.design else ""


def _judged_by_distance(name: str) -> bool:
    cells = [cell for row in CLAIMS.values() for cell in row.cells if cell.study == name]
    return any(term.measure.startswith("fd") for cell in cells for term in cell.terms)


def study(name: str) -> Study:
    """The study of that name.

    Raises:
        UsageError: there is none; the nearest are named.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    return STUDIES[name]
