"""What is run: arms, and everything that they share, frozen."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ddpm_ref.config import TrainConfig

ARTICLE = "article"
BLIND = "blind"

Entries = Mapping[str, Any]
"""Entries of a `TrainConfig`: `{"skip": "learned"}`, `{"schedule": "cosine", "schedule_options": {}}`."""


@dataclass(frozen=True)
class Arm:
    """One cell of a design: output × weighting × a named variant of network, skip, schedule or distribution of t.

    Attributes:
        output: the parameterization that the network outputs.
        weighting: name of the objective.
        variant: a row of the design's `variants`, which says what else differs; "" where nothing does.
        rates: the arm's own grid of learning rates; () = the design's.
    """

    output: str
    weighting: str
    variant: str = ""
    rates: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """How the arm is called everywhere: `eps/simple`, `eps/simple (article)`."""
        suffix = f" ({self.variant})" if self.variant else ""
        return f"{self.output}/{self.weighting}{suffix}"


FACTORIAL = tuple(Arm(o, w) for o in ("eps", "x0") for w in ("simple", "simple_x0"))
"""The 2 × 2 design: outputs × weightings."""
WITHOUT_TIME = (Arm("eps", "simple", ARTICLE), Arm("eps", "simple", BLIND))
"""The two arms that do not know t."""
WITH_V = (*FACTORIAL, Arm("v", "simple"), Arm("v", "simple_x0"))
"""The design with a third output."""
_NO_TIME_INPUT: Mapping[str, Entries] = {
    ARTICLE: {"network": ARTICLE, "network_options": {"hidden": 64}},
    BLIND: {"network_options": {"time_input": False}},
}
"""The variants of `WITHOUT_TIME`: the article's two convolutions, and the study's network that always sees the same t."""


@dataclass(frozen=True)
class Design:
    """Everything that decides a bit of the study, apart from the data.

    Attributes:
        arms: what is compared.
        variants: the arms' variants by name; the table of options of a variant is added to the common one where the network
            stays the same.
        judge: the yardsticks: `images` (errors, bits/dim, Fréchet distance) or `vectors` (errors, excess over the exact denoiser).
        seeds: one paired repetition each.
        tuning_seed: for the choice of learning rates only.
        rates: the common grid of learning rates.
        T: number of diffusion steps.
        schedule: name of the training schedule.
        schedule_options: its options.
        judged: highest and lowest log-SNR of the yardsticks; None = the range of the schedule, which must be finite.
        network: name of the common network.
        network_options: its options.
        training: further entries of every run's `TrainConfig`, such as decay of the learning rate.
        steps: optimizer steps of a run.
        tuning_steps: optimizer steps of a tuning run.
        batch_size: images per step.
        warmup_steps: of the learning rate.
        ema_decay: of the averaged weights.
        points: evaluations along a run.
        probe_images: held-out images at each point.
        final_images: held-out images at the end.
        bins: log-SNR bins of the yardsticks.
        bound_images: held-out images of bits/dim; 0 leaves it out.
        bound_evaluations: network evaluations of bits/dim.
        samples: generated images, equal for all arms and for the floor; 0 generates none.
        sampler_steps: steps of the ancestral sampler.
        sweep: further numbers of steps at which the distance is measured.
        scale: the data are multiplied by it before anything else, and samples divided: at a fixed schedule that is scaling the noise.
        grid: images shown.
        features: feature maps of the Fréchet distance, `bench.metrics.features`; the first is the primary one.
    """

    arms: tuple[Arm, ...] = (*FACTORIAL, *WITHOUT_TIME)
    variants: Mapping[str, Entries] = field(default_factory=lambda: dict(_NO_TIME_INPUT))
    judge: Literal["images", "vectors"] = "images"
    seeds: tuple[int, ...] = (1, 2, 3)
    tuning_seed: int = 1001
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    T: int = 200
    schedule: str = "log_snr"
    schedule_options: Mapping[str, float] = field(
        default_factory=lambda: {"first": 7.0, "last": -7.0}
    )
    judged: tuple[float, float] | None = None
    network: str = "unet"
    network_options: Mapping[str, Any] = field(
        default_factory=lambda: {"base": 16, "multipliers": (1, 2), "attention": (1,)}
    )
    training: Entries = field(default_factory=dict)
    steps: int = 1200
    tuning_steps: int = 200
    batch_size: int = 64
    warmup_steps: int = 50
    ema_decay: float = 0.995
    points: int = 10
    probe_images: int = 128
    final_images: int = 500
    bins: int = 14
    bound_images: int = 500
    bound_evaluations: int = 6000
    samples: int = 500
    sampler_steps: int = 50
    sweep: tuple[int, ...] = ()
    scale: float = 1.0
    grid: int = 40
    features: tuple[str, ...] = ("pca64",)

    def protocol(self) -> dict[str, Any]:
        """What a record keeps: JSON values only."""
        return {
            **plain(asdict(self)),
            "arms": [arm.name for arm in self.arms],
            "features": [_without_path(name) for name in self.features],
            "weights": "normalized to mean 1 over t",
            "clipping": "relative to the running gradient norm",
            "evaluated": "averaged weights",
            "sampler": "ancestral, posterior variance, predicted x0 clamped to [-1, 1] where the data are images",
            "bound": "posterior variance, nothing clipped",
        }

    def of_one_run(self) -> dict[str, Any]:
        """The entries that decide a bit of a single run, JSON values only: not which other runs there are."""
        shared = plain(asdict(self))
        return {k: v for k, v in shared.items() if k not in ("arms", "seeds", "rates", "variants")}

    def rates_of(self, arm: Arm) -> tuple[float, ...]:
        """The grid from which an arm's learning rate is chosen."""
        return arm.rates or self.rates

    def variant_of(self, arm: Arm) -> Entries:
        """The entries by which an arm differs, beside output and weighting.

        Raises:
            ValueError: the design has no variant of that name.
        """
        if arm.variant and arm.variant not in self.variants:
            raise ValueError(
                f"arm {arm.name!r} names the variant {arm.variant!r}, the design has {', '.join(self.variants) or 'none'}: "
                "add a row to its variants"
            )
        return self.variants.get(arm.variant, {})

    def config(
        self, arm: Arm, *, seed: int, rate: float, steps: int, device: str, provider: str
    ) -> "TrainConfig":
        """The training configuration of one run.

        Args:
            arm: output, weighting and variant.
            seed: shared by paired runs.
            rate: learning rate.
            steps: optimizer steps.
            device: where to train.
            provider: of the noise; it has no influence on the bits.
        """
        from ddpm_ref.config import TrainConfig

        variant = dict(self.variant_of(arm))
        if "network" not in variant:
            variant["network_options"] = {
                **self.network_options,
                **variant.get("network_options", {}),
            }
        common = TrainConfig(
            data="passed as a tensor",
            seed=seed,
            schedule=self.schedule,
            schedule_options=dict(self.schedule_options),
            T=self.T,
            parameterization=arm.output,
            weighting=arm.weighting,
            normalize_weights=True,
            network=self.network,
            network_options=dict(self.network_options),
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=rate,
            warmup_steps=min(self.warmup_steps, steps),
            ema_decay=self.ema_decay,
            provider=provider,
            device=device,
        )
        return dataclasses.replace(common, **{**self.training, **variant})

    def evaluation_steps(self) -> list[int]:
        """Training steps at which a run is judged: geometric from 1/50 of the run to its end."""
        first, last = max(1, self.steps // 50), self.steps
        ratio = (last / first) ** (1 / max(self.points - 1, 1))
        return sorted({round(first * ratio**k) for k in range(self.points)} | {last})


def _without_path(feature: str) -> str:
    """A feature map's name without the place of its weights."""
    return "inception:FILE" if feature.startswith("inception:") else feature


def plain(value: Any) -> Any:
    """The value with lists for tuples and dicts for mappings, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value
