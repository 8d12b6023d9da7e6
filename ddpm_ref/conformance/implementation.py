r"""The adapter: what an implementation of a diffusion objective may offer to the laws.

A law (`ddpm_ref.conformance.lawbook`) is a statement about *an* implementation, not about ours. To put a library under the
laws one writes a subclass of `Implementation` and fills in the methods that the library has; every other method stays as
it is and answers "not offered", which is a result of its own and no failure.

    class Mine(Implementation):
        name, first_index = "mine", 0                       # this library calls the first step 0

        def settings(self):                                 # the schedules that it can be asked about
            return (Setting("linear", 1000),)

        def q_sample(self, setting, x0, t, noise):
            return my_library.add_noise(x0, noise, self.index(t))

**Conventions of the laws.** Steps are t = 1 … T (Ho et al. 2020); tensors of samples are `[B, *dims]`, `t` is int64 `[B]`;
nats are summed over dims, `[B]`; a mean over dims is said so. x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε. A library that counts from 0
sets `first_index = 0` and calls `self.index(t)`: the translation exists in that one place. A library in other units
(x/√ᾱ_t, i.e. σ-space; time reversed; bits) is translated inside the method, where the reader sees how.

**Dtypes.** Inputs come as float64 where the adapter accepts it (`dtypes`), then as float32, bfloat16, float16: what a law
refutes in float64 is a bug, what it refutes only below is precision. `table_dtype` states in which precision the library
keeps its schedule: float64 inputs cannot be treated better than that.

**Conventions of the library.** Where a library knowingly means something else (its "SNR" is √SNR, its variance at t = 1 is
another one), the adapter declares a `Convention` with the adapter that reads the library that way. A law that fails on the
plain reading and holds on a declared one is reported as *convention*, with the declared words.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ddpm_ref.conformance.setting import STANDARD_SETTINGS, Setting

Model = Callable[[Tensor, Tensor], Tensor]
"""A network: `model(x_t, t) -> prediction`, both `[B, *dims]`; t is the 1-based index of the trained schedule."""


class NotOffered(Exception):  # noqa: N818 - an answer, not an error
    """The implementation has no such function (or not for this setting, dtype, name): a result, not a failure."""


@dataclass(frozen=True)
class Posterior:
    """q(x_{t−1} | x_t, x_0): the mean in the shape of x_t; variance and log-variance broadcastable to it, or None."""

    mean: Tensor
    variance: Tensor | None = None
    log_variance: Tensor | None = None


@dataclass(frozen=True)
class Bound:
    """Terms of the negative bound in nats, summed over dims; None where the implementation does not report one.

    `prior` `[B]`, `diffusion` `[B, T−1]` (column k is t = k + 2), `reconstruction` `[B]`, `total` `[B]`,
    `bits_per_dim` `[B]`.
    """

    prior: Tensor | None = None
    diffusion: Tensor | None = None
    reconstruction: Tensor | None = None
    total: Tensor | None = None
    bits_per_dim: Tensor | None = None


@dataclass(frozen=True)
class Convention:
    """A meaning of its own that the library has on purpose.

        conventions = (
            Convention("σ space", "x_t is x_0 + σ_t ε", "my_library/noise.py", MineInOurSpace, ("I1", "I15-noise")),
        )

    where `MineInOurSpace` is a subclass of the adapter (or of `Implementation`) that overrides what has to be read differently.
    It is put on top of the adapter under test: of a subclass of `Mine` it reads that subclass, and excuses nothing else in it.

    Attributes:
        name: a few words, for the matrix.
        statement: what the library means, in one sentence with the formula.
        source: where it says or shows so (a page, a file and function).
        reading: a class with the methods that read the library in that meaning, `super()` being the plain reading.
        laws: ids (`I16-ddim`) or invariants (`I16`) that the convention is about; no other law's failure is excused by it.

    Raises:
        TypeError: a reading that is not a class of adapters, or no law that it is about.
    """

    name: str
    statement: str
    source: str
    reading: type["Implementation"]
    laws: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.reading, type) and issubclass(self.reading, Implementation)):
            raise TypeError(
                f"reading of the convention {self.name!r} is {self.reading!r}: pass a class that derives from Implementation"
            )
        named = isinstance(self.laws, tuple) and all(isinstance(law, str) for law in self.laws)
        if not named or not self.laws:
            raise TypeError(
                f"laws of the convention {self.name!r} are {self.laws!r}: name those that it is about, as in ('I16-ddim',)"
            )

    def covers(self, law: str) -> bool:
        """The convention is about the law with this id."""
        return law in self.laws or law.partition("-")[0] in self.laws

    def read(self, plain: "Implementation") -> "Implementation":
        """`plain`, its own state included, read in this meaning."""
        kind = type(plain)
        both = (self.reading,) if issubclass(self.reading, kind) else (self.reading, kind)
        read = copy.copy(plain)
        read.__class__ = type(f"{self.reading.__name__} of {kind.__name__}", both, {})
        return read


class Implementation:
    """Base of all adapters: every method is optional, and raises `NotOffered` until it is filled in."""

    name: str = "unnamed"
    """Shown in reports."""
    version: str = ""
    """The installed version of the library under test."""
    first_index: int = 1
    """What the library calls our t = 1."""
    dtypes: tuple[torch.dtype, ...] = (
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
    )
    """Dtypes of samples that the library accepts."""
    table_dtype: torch.dtype = torch.float64
    """The precision in which the library keeps its schedule."""
    parameterizations: tuple[str, ...] = ("eps", "x0", "v", "score", "mean")
    """Spaces that methods are asked about; add "flow" (x0 − eps) where you have it. One that is named here and that a method lacks raises `NotOffered`."""
    weightings: tuple[str, ...] = (
        "simple",
        "simple_x0",
        "simple_v",
        "elbo",
        "truncated_snr",
        "min_snr",
        "p2",
    )
    """Those that `weight` and `loss` are asked about; add "edm" (SNR + 4 in x0 space) and "simple_flow" (1 in the space of `flow`) where you have them."""
    compute_dtype: torch.dtype | None = torch.float32
    """The least exact dtype of arithmetic: bf16 and fp16 samples are computed with in float32, and each result is rounded once. None: in their own."""
    keeps_dtype: bool = True
    """Results of the shape of a sample (x_t, targets, conversions, steps) have the dtype of the samples; False: float32 where samples are narrower."""
    density_dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)
    """Dtypes in which densities, KL divergences, weights and losses are asked, those of `dtypes`."""
    differentiable: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Method → the arguments through which its gradient has to flow, where that differs from the method's docstring; () for a method under `no_grad`.
    Where a gradient flows without having to, it is right."""
    other_lengths: bool = False
    """Schedules that `settings()` has by name exist at every T; rescaled or respaced, where it has one that is."""
    own_schedules: bool = False
    """Any `Setting` with `beta` or `log_snr` is accepted, and not only those of `settings()`."""
    other_parameters: bool = False
    """Schedules and weightings exist with other constants: `Setting.parameters`, and `p2(k=2, gamma=0.5)` or `min_snr(gamma=1)` as a weighting."""
    one_step_a_call: bool = False
    """The code takes one t for a whole batch, and the adapter calls it sample by sample: the usual profile then asks about a sample of the steps."""
    calls_a_step: int = 1
    """How often `bound` and `sample` call the model at each step."""
    conventions: tuple[Convention, ...] = ()
    """Meanings of its own that the library has on purpose."""

    def settings(self) -> Sequence[Setting]:
        """The schedules that the laws ask about; override where the library knows only some (or one of its own)."""
        return STANDARD_SETTINGS

    def index(self, t: Tensor) -> Tensor:
        """Our step 1 … T in the library's own count."""
        return t - 1 + self.first_index

    def _missing(self, what: str) -> NotOffered:
        return NotOffered(f"{self.name} offers no {what}")

    # ---------------------------------------------------------------- schedules

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Tables of a schedule, each `[T]` for t = 1 … T (visited steps when respaced), as exactly as the library has them.

        Keys, each optional: `beta`, `alpha_bar`, `one_minus_alpha_bar`, `log_snr` = ln(ᾱ/(1−ᾱ)),
        `snr` = ᾱ/(1−ᾱ), `posterior_variance` (β̃, 0 at t = 1). ValueError for a T that the named schedule refuses.
        """
        raise self._missing("schedule tables")

    # ---------------------------------------------------------------- forward process

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε, `[B, *dims]` (Ho et al. 2020, eq. 4)."""
        raise self._missing("q_sample")

    def noised(self, setting: Setting, x0: Tensor, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Draws its own noise: (x_t, the ε that the training target then uses), both `[B, *dims]`."""
        raise self._missing("q_sample that draws its own noise")

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        """q(x_{t−1} | x_t, x_0) (Ho et al. 2020, eq. 7) as a `Posterior`: the mean, and β̃_t and ln β̃_t where the library has them.

        At t = 1 they are 0 and −∞. A library that keeps a floor for ln 0 on purpose declares a `Convention`.
        """
        raise self._missing("posterior")

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """(variance, log-variance) `[B]` each of the reverse step, for `posterior` (β̃_t) or `beta` (β_t), t ≥ 2.

        At t = 1, where samplers add no noise and bounds have their decoder, the two have to agree and nothing else is asked.
        """
        raise self._missing("reverse variance")

    def learned_variance(
        self, setting: Setting, meaning: str, said: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(variance that sampling uses, log-variance that a bound uses) `[B, *dims]` where the network says it: `said` `[B, *dims]`.

        `meaning` is `log` (`said` is ln σ²) or `range` (`said` is v, 0 at the lower end and 1 at the upper:
        ln σ_t² = v ln β_t + (1−v) ln β̃_t, Nichol & Dhariwal 2021, eq. 15; at t = 1, where β̃_1 = 0, with ln β̃_2 … ln β_1 for the
        lower end). A network that says −1 … 1 is asked for 2v − 1.
        """
        raise self._missing(f"learned variance ({meaning})")

    # ---------------------------------------------------------------- parameterizations

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        """What a network with that output (`eps`, `x0`, `v`, `score`, `mean`, `flow` where declared) is trained to say, `[B, *dims]`."""
        raise self._missing("target")

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """The same prediction in another parameterization, `[B, *dims]`."""
        raise self._missing("conversion")

    # ---------------------------------------------------------------- objectives

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        """Factor on the squared error in that space, `[B]`.

        Weightings: `simple` (1 in eps space), `simple_x0` (1 in x0 space), `simple_v` (1 in v space), `elbo` (eq. 12 of
        Ho et al. with the posterior variance for t ≥ 2; at t = 1 the decoder's, 1/(2β_1) in x0 space), `truncated_snr`
        (max(SNR, 1) in x0 space), `min_snr` (min(SNR, 5) in x0 space), `p2` (1/(1 + SNR) in eps space).
        """
        raise self._missing("weight")

    def loss(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        eps: Tensor,
        t: Tensor,
        parameterization: str,
        weighting: str,
    ) -> Tensor:
        """Weighted squared error, mean over dims, one number per sample `[B]`."""
        raise self._missing("loss")

    def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
        """L_simple + λ L_vlb, λ = 0.001 (Nichol & Dhariwal 2021, eq. 16), from `[B]` per-sample terms at uniform t.

        `bound_term` is one L_t in nats, so that L_vlb = Σ_t L_t is estimated by T · L_t.
        """
        raise self._missing("hybrid loss")

    # ---------------------------------------------------------------- bound and densities

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        """KL(N(mean1, exp log_var1) ‖ N(mean2, exp log_var2)), elementwise, nats."""
        raise self._missing("Gaussian KL")

    def discretized_log_likelihood(
        self, x: Tensor, mean: Tensor, log_scale: Tensor, levels: int
    ) -> Tensor:
        """ln of the mass of N(mean, exp(log_scale)²) in x's bin on the lattice of `levels` values in [−1, 1], elementwise."""
        raise self._missing("discretized likelihood")

    def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
        """KL(q(x_T | x_0) ‖ N(0, I)) in nats, `[B]`."""
        raise self._missing("prior KL")

    def bound_term(
        self,
        setting: Setting,
        prediction: Tensor,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        """L_t = KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) in nats, t ≥ 2, `[B]`; `variance` as in `reverse_variance`."""
        raise self._missing("single bound term")

    def bound(
        self,
        setting: Setting,
        model: Model,
        x0: Tensor,
        parameterization: str,
        variance: str,
        decoder: str,
        levels: int | None,
    ) -> Bound:
        """All terms of −ELBO for these x_0, one draw of noise per term; `decoder` is `gaussian` or `discretized`."""
        raise self._missing("bound")

    def bits_per_dim(self, nats: Tensor, dims: int) -> Tensor:
        """Nats summed over `dims` dimensions, `[B]`, in bits per dimension."""
        raise self._missing("bits per dimension")

    # ---------------------------------------------------------------- exact models

    def gaussian_denoise(
        self, setting: Setting, mean: Tensor, covariance: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """E[x_0 | x_t] for x_0 ~ N(mean `[D]`, covariance `[D, D]`), `[B, D]`."""
        raise self._missing("exact Gaussian denoiser")

    def mixture_denoise(
        self,
        setting: Setting,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        x_t: Tensor,
        t: Tensor,
    ) -> Tensor:
        """E[x_0 | x_t] for a Gaussian mixture (`[K]`, `[K, D]`, `[K, D, D]`), `[B, D]`."""
        raise self._missing("exact mixture denoiser")

    def empirical_denoise(self, setting: Setting, data: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] for x_0 uniform on the rows of `data` `[N, D]`, `[B, D]`."""
        raise self._missing("exact denoiser of a finite data set")

    def gaussian_log_prob(self, mean: Tensor, covariance: Tensor, x0: Tensor) -> Tensor:
        """ln N(x_0; mean, covariance), nats, `[B]`."""
        raise self._missing("Gaussian log-density")

    def mixture_log_prob(
        self, weights: Tensor, means: Tensor, covariances: Tensor, x0: Tensor
    ) -> Tensor:
        """Log-density of a Gaussian mixture, nats, `[B]`."""
        raise self._missing("mixture log-density")

    def gaussian_entropy(self, covariance: Tensor) -> float:
        """Differential entropy of N(·, covariance) in nats."""
        raise self._missing("Gaussian entropy")

    def gaussian_bound(
        self, setting: Setting, mean: Tensor, covariance: Tensor, variance: str
    ) -> Bound:
        """Expected −ELBO (over data and noise) of the optimal denoiser on Gaussian data, Gaussian decoder; B = 1."""
        raise self._missing("expected bound")

    def rank_limited_excess(
        self, setting: Setting, eigenvalues: Tensor, rank: int, t: Tensor, parameterization: str
    ) -> Tensor:
        """E‖x̂_0 − E[x_0 | x_t]‖² of the best linear network of that rank with that output, `[B]`, on centred Gaussian data.

        `eigenvalues` `[D]` are those of the covariance, in any order; the network is trained by the squared error of its own
        output (`eps`, `x0`, `v`), one for each t `[B]`.
        """
        raise self._missing("price of a bottleneck")

    # ---------------------------------------------------------------- sampling

    def sampler_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        sampler: str,
        eta: float,
    ) -> Tensor:
        """One reverse step from t to the step before it in the setting's list (0 = data), no clipping.

        `sampler` is `ddpm` (posterior variance; `eta` ignored; no noise at t = 1) or `ddim` (Song et al. 2021, eq. 12 with
        σ = η σ_ddpm). `t` counts the setting's own steps, 1 … len(timesteps) when respaced.
        """
        raise self._missing("sampler step")

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        """A whole chain from N(0, I) to data, no clipping, η = 0 for `ddim`."""
        raise self._missing("sampler")

    def ancestral_step(
        self,
        setting: Setting,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        noise: Tensor,
        parameterization: str,
        variance: str,
    ) -> Tensor:
        """One ancestral step with the variance of `reverse_variance`: c_0 x̂_0 + c_t x_t + σ_t z; no noise at t = 1."""
        raise self._missing("ancestral step with a choice of variance")

    def chain_in(
        self, setting: Setting, model: Model, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """A whole DDIM chain (η = 0) of a model that says x_0 and works in that dtype, bf16 for instance."""
        raise self._missing("chain in another dtype")

    def mean_bound(
        self, setting: Setting, model: Model, x0: Tensor, variance: str, draws: int
    ) -> Bound:
        """`bound` of a model that says x_0, Gaussian decoder, each term the mean over that many independent draws of noise."""
        raise self._missing("bound with several draws")

    def bound_estimate(
        self, setting: Setting, model: Model, data: Tensor, evaluations: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """(estimate, standard error) of the mean over data of the bound of such a model, in nats per dim, from a budget of network outputs."""
        raise self._missing("estimate of the bound from a budget")

    # ---------------------------------------------------------------- training

    def trained(self, steps: int) -> tuple[Tensor, Tensor]:
        """Trains a small network with an average of its weights: one weight after each step, `[N]`, and its average then, `[N]`.

        The average follows at step k with decay k/(k + 9), up to a ceiling that N does not reach.
        """
        raise self._missing("training with an average")

    def noise(self, shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
        """Standard normal noise `[B, *dims]` in float32 for samples first_index … of one step, reproducible from its arguments."""
        raise self._missing("reproducible noise")

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        """A low-discrepancy or importance-weighted draw: t int64 `[count]`, and weights w `[count]` with E[w f(t)] = mean of f."""
        raise self._missing("t-sampler")

    def ema(self, values: Tensor, decay: float) -> Tensor:
        """Exponential moving average of `values` `[N]`, started at `values[0]`, after each step, `[N]`."""
        raise self._missing("EMA")

    # ---------------------------------------------------------------- sample quality

    def features(self, images: Tensor) -> Tensor:
        """Features `[N, F]` of images `[N, C, H, W]` in [−1, 1], as the Fréchet distance uses them."""
        raise self._missing("feature network")

    def frechet_distance(self, real: Tensor, generated: Tensor) -> float:
        """Fréchet distance between two sets of images `[N, C, H, W]` in [−1, 1], with this implementation's features."""
        raise self._missing("Fréchet distance")

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """d² of two Gaussians: means `[F]`, covariances `[F, F]`, singular ones included."""
        raise self._missing("Fréchet distance of moments")

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """Fréchet distance between two sets of features `[N, F]` and `[M, F]`, as its network says them."""
        raise self._missing("Fréchet distance of features")

    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        """`frechet_distance` of sets handed over `batch` images at a time; a last batch may be smaller."""
        raise self._missing("Fréchet distance in batches")

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """What the first layer of its Inception network is shown, `[N, 3, 299, 299]`, for uint8 images `[N, C, H, W]`, C = 1 or 3.

        They are handed over as it takes 8-bit images (`bytes`), or as floats k/255 (`unit`).
        """
        raise self._missing("feature network's input")

    def frechet_label(self, extractor: str, samples: int) -> str:
        """What a report prints beside that number; the letters FID alone belong to Inception and ≥ 10,000 samples."""
        raise self._missing("Fréchet label")
