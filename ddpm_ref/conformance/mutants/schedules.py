# ruff: noqa: D101, D102 - the words of the decorator say what each class does wrong
"""Defects of schedules: another schedule under the same name, and tables that lose their ends."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.mutants.mutant import mutant
from ddpm_ref.conformance.reference import schedule_of
from ddpm_ref.conformance.setting import Setting

Tables = Mapping[str, Tensor]


def _from_beta(setting: Setting, beta: Tensor) -> dict[str, Tensor]:
    """Plain float64 tables of other β, respacing and rescaling left aside."""
    kept = torch.cumprod(1 - beta, 0)
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    return {
        "beta": beta,
        "alpha_bar": kept,
        "one_minus_alpha_bar": 1 - kept,
        "log_snr": (kept / (1 - kept)).log(),
        "posterior_variance": beta * (1 - before) / (1 - kept),
    }


def _plain(setting: Setting, name: str) -> bool:
    return setting.name == name and setting.timesteps is None and not setting.zero_terminal_snr


def _edited(tables: Tables, key: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {**tables, key: change(tables[key])}


@mutant(
    "'linear' interpolates √β and squares", "I24-beta", origin="latent-diffusion's linear schedule"
)
class LinearInRoot(Implementation):
    def tables(self, setting: Setting) -> Tables:
        if not _plain(setting, "linear"):
            return super().tables(setting)
        ends = torch.linspace(1e-4**0.5, 0.02**0.5, setting.T, dtype=torch.float64)
        return _from_beta(setting, ends**2)


@mutant(
    "the linear schedule scales β with 1000/T and lets it exceed 1",
    "I24-beta",
    "I14-tables",
    origin="T-scaled linear with T < 20: β > 1, silent NaN",
)
class LinearScaledWithT(Implementation):
    def tables(self, setting: Setting) -> Tables:
        if not _plain(setting, "linear"):
            return super().tables(setting)
        scale = 1000 / setting.T
        beta = torch.linspace(scale * 1e-4, scale * 0.02, setting.T, dtype=torch.float64)
        return _from_beta(setting, beta)


@mutant(
    "cosine without the cap on β: ᾱ_T = 3.7e-33 at T = 1000",
    "I25-terminal",
    origin="cosine β uncapped",
)
class CosineUncapped(Implementation):
    def tables(self, setting: Setting) -> Tables:
        if not _plain(setting, "cosine"):
            return super().tables(setting)
        t = torch.arange(setting.T + 1, dtype=torch.float64)
        kept = torch.cos((t / setting.T + 0.008) / 1.008 * math.pi / 2) ** 2
        return {**super().tables(setting), "alpha_bar": kept[1:] / kept[0]}


@mutant("cosine capped at 0.99 instead of 0.999", "I24-beta", "I25-terminal")
class CosineCappedLower(Implementation):
    def tables(self, setting: Setting) -> Tables:
        if not _plain(setting, "cosine"):
            return super().tables(setting)
        return _from_beta(setting, super().tables(setting)["beta"].clamp(max=0.99))


@mutant(
    "the sigmoid schedule ignores its clamp",
    "I24-beta",
    origin="an ignored clamp_min",
)
class SigmoidUnclamped(Implementation):
    def tables(self, setting: Setting) -> Tables:
        if not _plain(setting, "sigmoid"):
            return super().tables(setting)
        x = torch.linspace(-3, 3, setting.T + 1, dtype=torch.float64)
        kept = torch.sigmoid(x[-1]) - torch.sigmoid(x)
        return {**super().tables(setting), "beta": 1 - kept[1:] / kept[:-1]}


@mutant(
    "ᾱ starts at 1 for the first step, whose 1−ᾱ is 0: 0/0 in the posterior variance",
    "I14-tables",
    origin="cosine with ᾱ[0] = 1",
)
class FirstStepClean(Implementation):
    def tables(self, setting: Setting) -> Tables:
        def broken(values: Tensor) -> Tensor:
            return torch.cat([values[:1] * 0 / torch.zeros(1).double(), values[1:]])

        return _edited(super().tables(setting), "posterior_variance", broken)


@mutant(
    "α_t = 1−β_t is returned where ᾱ_t is expected",
    "I24-alpha-bar",
    origin="α returned where ᾱ is expected",
)
class AlphaForAlphaBar(Implementation):
    def tables(self, setting: Setting) -> Tables:
        found = super().tables(setting)
        return {**found, "alpha_bar": 1 - found["beta"]}


@mutant("'SNR' is √ᾱ/√(1−ᾱ)", "I7-snr", origin="'SNR' meaning α/σ")
class RootOfSnr(Implementation):
    def tables(self, setting: Setting) -> Tables:
        return _edited(super().tables(setting), "snr", torch.sqrt)


@mutant("1−ᾱ is formed from ᾱ in float32", "I15-rest", origin="float32 ᾱ: 1−ᾱ_1 off by 1.7e-4")
class RestFromSingle(Implementation):
    def tables(self, setting: Setting) -> Tables:
        found = super().tables(setting)
        return {**found, "one_minus_alpha_bar": (1 - found["alpha_bar"].float()).double()}


@mutant(
    "1−ᾱ is 1 − exp(ln ᾱ) in float32 instead of −expm1", "I15-log-snr", origin="exp() − 1 for expm1"
)
class ExpMinusOne(Implementation):
    def tables(self, setting: Setting) -> Tables:
        found = super().tables(setting)
        log_kept = found["alpha_bar"].log().float()
        return {**found, "log_snr": (log_kept - (1 - log_kept.exp()).log()).double()}


@mutant("log-SNR is ln(√ᾱ/√(1−ᾱ))", "I15-log-snr")
class HalfLogSnr(Implementation):
    def tables(self, setting: Setting) -> Tables:
        return _edited(super().tables(setting), "log_snr", lambda values: 0.5 * values)


@mutant(
    "under respacing the posterior variance uses β of the full schedule",
    "I2-variance",
    origin="β of the full schedule used under respacing",
)
class FullBetaRespaced(Implementation):
    def tables(self, setting: Setting) -> Tables:
        found = super().tables(setting)
        if setting.timesteps is None:
            return found
        full = schedule_of(replace(setting, timesteps=None)).beta[list(setting.timesteps)]
        return {**found, "posterior_variance": found["posterior_variance"] / found["beta"] * full}


@mutant("under respacing ᾱ is the product of the chosen steps' own 1−β", "I24-alpha-bar")
class ProductOfChosen(Implementation):
    def tables(self, setting: Setting) -> Tables:
        found = super().tables(setting)
        if setting.timesteps is None:
            return found
        full = schedule_of(replace(setting, timesteps=None)).beta[list(setting.timesteps)]
        return {**found, "alpha_bar": torch.cumprod(1 - full, 0)}


@mutant("the posterior variance of step t is that of t − 1", "I2-variance")
class VarianceShifted(Implementation):
    def tables(self, setting: Setting) -> Tables:
        return _edited(super().tables(setting), "posterior_variance", lambda v: v.roll(1))


@mutant("tables run from T down to 1", "I26-falling", "I24-alpha-bar")
class TimeReversed(Implementation):
    def tables(self, setting: Setting) -> Tables:
        return {key: table.flip(0) for key, table in super().tables(setting).items()}


@mutant("the rescaling to zero terminal SNR is forgotten", "I25-terminal", "I24-alpha-bar")
class NotRescaled(Implementation):
    def tables(self, setting: Setting) -> Tables:
        return super().tables(replace(setting, zero_terminal_snr=False))


@mutant("linear ends at 0.019 instead of 0.02", "I24-beta")
class OtherEnd(Implementation):
    def tables(self, setting: Setting) -> Tables:
        if not _plain(setting, "linear"):
            return super().tables(setting)
        return _from_beta(setting, torch.linspace(1e-4, 0.019, setting.T, dtype=torch.float64))
