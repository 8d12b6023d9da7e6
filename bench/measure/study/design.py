"""What is run: arms, and everything that they share, frozen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_ref.config import TrainConfig

ARTICLE = "article"
BLIND = "unet, t held constant"


@dataclass(frozen=True)
class Arm:
    """One cell of the design.

    Attributes:
        output: the parameterization that the network outputs.
        weighting: name of the objective.
        network: `unet`; or `article`, the article's two convolutions; or `blind`, the U-Net that always sees the same t.
    """

    output: str
    weighting: str
    network: str = "unet"

    @property
    def name(self) -> str:
        """How the arm is called everywhere: `eps/simple`, `eps/simple (article)`."""
        suffix = "" if self.network == "unet" else f" ({self.network})"
        return f"{self.output}/{self.weighting}{suffix}"


FACTORIAL = tuple(Arm(o, w) for o in ("eps", "x0") for w in ("simple", "simple_x0"))
"""The 2 × 2 design: outputs × weightings."""
WITHOUT_TIME = (Arm("eps", "simple", "article"), Arm("eps", "simple", "blind"))
"""The two arms that do not know t."""
WITH_V = (*FACTORIAL, Arm("v", "simple"), Arm("v", "simple_x0"))
"""The design with a third output."""


@dataclass(frozen=True)
class Design:
    """Everything that decides a bit of the study, apart from the data.

    Attributes:
        arms: what is compared.
        seeds: one paired repetition each.
        tuning_seed: for the choice of learning rates only.
        rates: the common grid of learning rates.
        T: number of diffusion steps.
        schedule: name of the training schedule.
        schedule_options: its options; the log-SNR range must be finite.
        network_options: of the U-Net.
        article_hidden: feature maps of the article's network.
        steps: optimizer steps of a run.
        tuning_steps: optimizer steps of a tuning run.
        batch_size: images per step.
        warmup_steps: of the learning rate.
        ema_decay: of the averaged weights.
        points: evaluations along a run.
        probe_images: held-out images at each point.
        final_images: held-out images at the end.
        bins: log-SNR bins of the yardsticks.
        bound_images: held-out images of bits/dim.
        bound_evaluations: network evaluations of bits/dim.
        samples: generated images, equal for all arms and for the floor.
        sampler_steps: steps of the ancestral sampler.
        grid: images shown.
    """

    arms: tuple[Arm, ...] = (*FACTORIAL, *WITHOUT_TIME)
    seeds: tuple[int, ...] = (1, 2, 3)
    tuning_seed: int = 1001
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    T: int = 200
    schedule: str = "log_snr"
    schedule_options: Mapping[str, float] = field(
        default_factory=lambda: {"first": 7.0, "last": -7.0}
    )
    network_options: Mapping[str, Any] = field(
        default_factory=lambda: {"base": 16, "multipliers": (1, 2), "attention": (1,)}
    )
    article_hidden: int = 64
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
    grid: int = 40

    def protocol(self) -> dict[str, Any]:
        """What a record keeps: JSON values only."""
        entries = asdict(self)
        return {
            **entries,
            "arms": [arm.name for arm in self.arms],
            "seeds": list(self.seeds),
            "rates": list(self.rates),
            "schedule_options": dict(self.schedule_options),
            "network_options": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in self.network_options.items()
            },
            "weights": "normalized to mean 1 over t",
            "clipping": "relative to the running gradient norm",
            "evaluated": "averaged weights",
            "sampler": "ancestral, posterior variance, predicted x0 clamped to [-1, 1]",
            "bound": "posterior variance, nothing clipped",
        }

    def config(
        self, arm: Arm, *, seed: int, rate: float, steps: int, device: str, provider: str
    ) -> "TrainConfig":
        """The training configuration of one run.

        Args:
            arm: output, weighting and network.
            seed: shared by paired runs.
            rate: learning rate.
            steps: optimizer steps.
            device: where to train.
            provider: of the noise; it has no influence on the bits.
        """
        from ddpm_ref.config import TrainConfig

        article = arm.network == "article"
        blind = {"time_input": False} if arm.network == "blind" else {}
        return TrainConfig(
            data="passed as a tensor",
            seed=seed,
            schedule=self.schedule,
            T=self.T,
            parameterization=arm.output,
            weighting=arm.weighting,
            normalize_weights=True,
            network="article" if article else "unet",
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=rate,
            warmup_steps=min(self.warmup_steps, steps),
            ema_decay=self.ema_decay,
            provider=provider,
            device=device,
            schedule_options=dict(self.schedule_options),
            network_options={"hidden": self.article_hidden}
            if article
            else {**self.network_options, **blind},
        )

    def evaluation_steps(self) -> list[int]:
        """Training steps at which a run is judged: geometric from 1/50 of the run to its end."""
        first, last = max(1, self.steps // 50), self.steps
        ratio = (last / first) ** (1 / max(self.points - 1, 1))
        return sorted({round(first * ratio**k) for k in range(self.points)} | {last})
