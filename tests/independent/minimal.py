"""Small right implementations, each plain in one way that people's code is plain in: none may have a bug.

They share nothing but the formulas: what a law reads into one of them beyond its declarations shows as a false bug.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ddpm_ref.conformance import Implementation, Model, NotOffered, Posterior, Setting


def linear(T: int, dtype: torch.dtype) -> Tensor:
    """β_1 … β_T."""
    return torch.linspace(1e-4, 0.02, T, dtype=dtype)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """`[B]` against `[B, *dims]`."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


class Float32Only(Implementation):
    """Takes float32 and nothing else; its tables are float32 too."""

    name, dtypes, table_dtype = "float32 only", (torch.float32,), torch.float32

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 1000),)

    def _roots(self, setting: Setting, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        if like.dtype != torch.float32:
            raise TypeError(f"float32 is expected, not {like.dtype}")
        kept = torch.cumprod(1 - linear(setting.T, torch.float64), 0)
        a, s = kept.sqrt().float(), (1 - kept).sqrt().float()
        return spread(a[t - 1], like), spread(s[t - 1], like)

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        a, s = self._roots(setting, t, x0)
        return a * x0 + s * noise

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        a, s = self._roots(setting, t, x0)
        known = {"eps": eps.clone(), "x0": x0.clone(), "v": a * eps - s * x0}
        if parameterization not in known:
            raise self._missing(parameterization)
        return known[parameterization]

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
        plain = {"eps": "simple", "x0": "simple_x0", "v": "simple_v"}
        if plain.get(parameterization) != weighting:
            raise self._missing(f"{weighting} of {parameterization}")
        right = self.target(setting, parameterization, x0, eps, t)
        return (prediction - right).square().flatten(1).mean(1)


class RoundedOneByOne(Implementation):
    """Every coefficient computed in float64 and rounded to float32 by itself, as buffers are registered."""

    name, table_dtype = "coefficients rounded one by one", torch.float32
    dtypes = (torch.float64, torch.float32)

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 200),)

    def _buffers(self, setting: Setting) -> dict[str, Tensor]:
        beta = linear(setting.T, torch.float64)
        kept = torch.cumprod(1 - beta, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        variance = beta * (1 - before) / (1 - kept)
        named = {
            "a": kept.sqrt(),
            "s": (1 - kept).sqrt(),
            "recip": (1 / kept).sqrt(),
            "recipm1": (1 / kept - 1).sqrt(),
            "clean": before.sqrt() * beta / (1 - kept),
            "noisy": (1 - beta).sqrt() * (1 - before) / (1 - kept),
            "beta": beta,
            "log_beta": beta.log(),
            "variance": variance,
            "log_variance": variance.log(),
        }
        return {key: value.float() for key, value in named.items()}

    def _at(self, setting: Setting, key: str, t: Tensor, like: Tensor) -> Tensor:
        return spread(self._buffers(setting)[key][t - 1], like)

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return self._at(setting, "a", t, x0) * x0 + self._at(setting, "s", t, x0) * noise

    def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
        mean = self._at(setting, "clean", t, x0) * x0 + self._at(setting, "noisy", t, x0) * x_t
        variance, log = (self._at(setting, k, t, x0) for k in ("variance", "log_variance"))
        return Posterior(mean, variance, log)

    def reverse_variance(self, setting: Setting, variance: str, t: Tensor) -> tuple[Tensor, Tensor]:
        rows = self._buffers(setting)
        key = {"posterior": "variance", "beta": "beta"}[variance]
        return rows[key][t - 1], rows["log_variance" if key == "variance" else "log_beta"][t - 1]

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        def at(key: str) -> Tensor:
            return self._at(setting, key, t, x_t)

        if (source, to) == ("eps", "x0"):
            return at("recip") * x_t - at("recipm1") * prediction
        if (source, to) == ("x0", "eps"):
            return (at("recip") * x_t - prediction) / at("recipm1")
        if (source, to) == ("v", "x0"):
            return at("a") * x_t - at("s") * prediction
        if (source, to) == ("x0", "mean"):
            return at("clean") * prediction + at("noisy") * x_t
        raise NotOffered(f"no conversion from {source} to {to}")

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
        if sampler != "ddpm" or parameterization not in ("eps", "x0"):
            raise self._missing(f"{sampler} from {parameterization}")
        clean = prediction
        if parameterization == "eps":
            clean = self.convert(setting, prediction, x_t, t, "eps", "x0")
        found = self.posterior(setting, clean, x_t, t)
        scale = torch.exp(0.5 * found.log_variance) if found.log_variance is not None else 0
        return found.mean + scale * noise


class PlainCumprod(Implementation):
    """β, their product and its complement in float32 throughout."""

    name, table_dtype = "plain cumprod in float32", torch.float32
    dtypes = (torch.float64, torch.float32)

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 1000),)

    def _rows(self, setting: Setting) -> dict[str, Tensor]:
        beta = linear(setting.T, torch.float32)
        kept = torch.cumprod(1 - beta, 0)
        before = torch.cat([torch.ones(1), kept[:-1]])
        return {
            "beta": beta,
            "alpha_bar": kept,
            "posterior_variance": beta * (1 - before) / (1 - kept),
        }

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        return self._rows(setting)

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self._rows(setting)["alpha_bar"][t - 1]
        return spread(kept.sqrt(), x0) * x0 + spread((1 - kept).sqrt(), x0) * noise

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        kept = self._rows(setting)["alpha_bar"][t - 1]
        a, s = spread(kept.sqrt(), x_t), spread((1 - kept).sqrt(), x_t)
        if (source, to) == ("eps", "x0"):
            return (x_t - s * prediction) / a
        if (source, to) == ("x0", "eps"):
            return (x_t - a * prediction) / s
        raise NotOffered(f"no conversion from {source} to {to}")

    def weight(self, setting: Setting, weighting: str, t: Tensor, parameterization: str) -> Tensor:
        kept = self._rows(setting)["alpha_bar"][t - 1]
        snr = kept / (1 - kept)
        if (weighting, parameterization) == ("min_snr", "eps"):
            return snr.clamp(max=5) / snr
        if (weighting, parameterization) == ("simple", "x0"):
            return snr
        raise self._missing(f"{weighting} in {parameterization} space")


class OneScheduleOnly(Implementation):
    """Has one schedule of one length, and knows no other word."""

    name = "one schedule only"
    dtypes = (torch.float64, torch.float32)

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("cosine", 100),)

    def _kept(self, setting: Setting) -> Tensor:
        s = 0.008
        f = torch.cos((torch.arange(101, dtype=torch.float64) / 100 + s) / (1 + s) * torch.pi / 2)
        beta = 1 - (f[1:] / f[:-1]).square()
        return {("cosine", 100): torch.cumprod(1 - beta.clamp(max=0.999), 0)}[
            setting.name, setting.T
        ]

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        return {"alpha_bar": self._kept(setting)}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self._kept(setting)[t - 1]
        wide = (
            spread(kept.sqrt(), x0.double()) * x0 + spread((1 - kept).sqrt(), x0.double()) * noise
        )
        return wide.to(x0.dtype)


class ImagesOnly(Implementation):
    """Its functions take `[B, C, H, W]`; the adapter hands samples of other shapes over as columns of one pixel."""

    name = "images only"
    dtypes = (torch.float64, torch.float32)

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 1000),)

    @staticmethod
    def _add_noise(images: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if images.ndim != 4:
            raise ValueError("images [B, C, H, W] are expected")
        kept = torch.cumprod(1 - linear(1000, torch.float64), 0)[t - 1]
        a, s = kept.sqrt()[:, None, None, None], (1 - kept).sqrt()[:, None, None, None]
        return (a * images + s * noise).to(images.dtype)

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        if x0.ndim == 4:
            return self._add_noise(x0, t, noise)
        columns = (v.reshape(len(v), -1, 1, 1) for v in (x0, noise))
        images, added = columns
        return self._add_noise(images, t, added).reshape(x0.shape)


class FromZero(Implementation):
    """Counts its steps 0 … T − 1, and so does its chain's model, which the adapter translates."""

    name, first_index = "t from 0", 0
    dtypes = (torch.float64, torch.float32)

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 30),)

    def _rows(self, setting: Setting) -> tuple[Tensor, Tensor, Tensor]:
        beta = linear(setting.T, torch.float64)
        kept = torch.cumprod(1 - beta, 0)
        return beta, kept, torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self._rows(setting)[1][self.index(t)]
        wide = x0.double()
        return (spread(kept.sqrt(), wide) * wide + spread((1 - kept).sqrt(), wide) * noise).to(
            x0.dtype
        )

    def _step(
        self, setting: Setting, eps: Tensor, x: Tensor, index: Tensor, noise: Tensor
    ) -> Tensor:
        beta, kept, before = (spread(row[index], x.double()) for row in self._rows(setting))
        mean = (x - beta / (1 - kept).sqrt() * eps) / (1 - beta).sqrt()
        return mean + (beta * (1 - before) / (1 - kept)).sqrt() * noise

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
        if (sampler, parameterization) != ("ddpm", "eps"):
            raise self._missing(f"{sampler} from {parameterization}")
        return self._step(setting, prediction, x_t, self.index(t), noise).to(x_t.dtype)

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        if (sampler, parameterization) != ("ddpm", "eps"):
            raise self._missing(f"{sampler} from {parameterization}")
        x = torch.randn(shape)
        for index in reversed(range(setting.T)):
            at = torch.full((shape[0],), index)
            noise = torch.randn(shape) if index else torch.zeros(shape)
            x = self._step(setting, model(x, at + 1), x, at, noise).float()
        return x


class SmallIntegers(Implementation):
    """Its steps are int32, also those that its chain hands to the model."""

    name = "int32 t"
    dtypes = (torch.float64, torch.float32)

    def settings(self) -> tuple[Setting, ...]:
        return (Setting("linear", 30),)

    def _kept(self, t: Tensor, like: Tensor) -> Tensor:
        if t.dtype != torch.int32:
            raise TypeError(f"int32 steps are expected, not {t.dtype}")
        return spread(torch.cumprod(1 - linear(30, torch.float64), 0)[t - 1], like.double())

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        kept = self._kept(t.int(), x0)
        return (kept.sqrt() * x0 + (1 - kept).sqrt() * noise).to(x0.dtype)

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(1, T + 1, (count,), generator=generator, dtype=torch.int32)
        return drawn, torch.ones(count)


class ExactImportanceSampler(Implementation):
    """t in proportion to √t + 1, with the weights that undo it."""

    name = "exact importance sampler"

    def time_steps(self, count: int, T: int, seed: int) -> tuple[Tensor, Tensor]:
        share = torch.arange(1, T + 1, dtype=torch.float64).sqrt() + 1
        share = share / share.sum()
        generator = torch.Generator().manual_seed(seed)
        t = torch.multinomial(share, count, replacement=True, generator=generator) + 1
        return t, 1 / (T * share[t - 1])


MINIMAL: tuple[type[Implementation], ...] = (
    Float32Only,
    RoundedOneByOne,
    PlainCumprod,
    OneScheduleOnly,
    ImagesOnly,
    FromZero,
    SmallIntegers,
    ExactImportanceSampler,
)
"""All of them."""
