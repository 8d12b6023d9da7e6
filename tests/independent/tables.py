"""Tables of a schedule in 50 digits, rounded to float64 once.

    ᾱ_t = ∏ (1 − β_s),   λ_t = ln(ᾱ_t / (1 − ᾱ_t)),   β̃_t = β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t)

linear: Ho et al. 2020, section 4. cosine: Nichol & Dhariwal 2021, eq. 17. sigmoid: Chen 2023, algorithm 1. Zero terminal SNR: Lin et al.
2024, algorithm 1. Respaced: β of the kept steps is 1 − ᾱ_i / ᾱ_{i−1} (Nichol & Dhariwal 2021, section 4).
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import mpmath
import torch
from torch import Tensor

from ddpm_ref.conformance import NotOffered, Setting

MP = mpmath.mp.clone()
MP.dps = 50
LARGEST_BETA = 0.999


def _decay(name: str, T: int) -> list[Any]:
    """f(0) … f(T), of which ᾱ_t = f(t)/f(0) before β is capped."""
    if name == "cosine":
        offset = MP.mpf(0.008)
        return [
            MP.cos((MP.mpf(t) / T + offset) / (1 + offset) * MP.pi / 2) ** 2 for t in range(T + 1)
        ]
    if name == "sigmoid":
        end = 1 / (1 + MP.exp(MP.mpf(-3)))
        return [end - 1 / (1 + MP.exp(3 - 6 * MP.mpf(t) / T)) for t in range(T + 1)]
    raise NotOffered(f"no schedule {name!r} here")


def _betas(setting: Setting) -> list[Any]:
    """β_1 … β_T in 50 digits, before rescaling and respacing."""
    T = setting.T
    if setting.beta is not None:
        return [MP.mpf(float(b)) for b in setting.beta]
    if setting.log_snr is not None:
        kept = [MP.mpf(1)] + [1 / (1 + MP.exp(-MP.mpf(float(v)))) for v in setting.log_snr]
        return [1 - b / a for a, b in pairwise(kept)]
    if setting.name == "linear":
        first, last = MP.mpf(1e-4), MP.mpf(0.02)
        return [first + (last - first) * t / max(T - 1, 1) for t in range(T)]
    f = _decay(setting.name, T)
    return [min(1 - b / a, MP.mpf(LARGEST_BETA)) for a, b in pairwise(f)]


def alpha_bars(setting: Setting) -> list[Any]:
    """ᾱ_0 = 1, then ᾱ of the visited steps."""
    kept = [MP.mpf(1)]
    for beta in _betas(setting):
        kept.append(kept[-1] * (1 - beta))
    if setting.zero_terminal_snr:
        root = [MP.sqrt(a) for a in kept]
        if setting.T == 1:
            raise ValueError("T = 1 cannot be rescaled: its only step would be noise; use T >= 2")
        first, last = root[1], root[-1]
        kept = [MP.mpf(1)] + [((r - last) * first / (first - last)) ** 2 for r in root[1:]]
    steps = setting.timesteps or tuple(range(1, setting.T + 1))
    return [kept[0], *(kept[t] for t in steps)]


@dataclass(frozen=True)
class Tables:
    """Float64 tables `[steps + 1]`; entry 0 is clean data. `tilde` is β̃ with its logarithm, `decoder` the one with β̃_2 at t = 1."""

    timesteps: Tensor
    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor
    sigma2: Tensor
    log_snr: Tensor
    snr: Tensor
    tilde: Tensor
    log_tilde: Tensor
    log_beta: Tensor
    clipped_log_tilde: Tensor
    log_sigma2: Tensor
    prior_excess: Tensor

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.beta) - 1

    def at(self, name: str, t: Tensor, like: Tensor | None = None, *, shift: int = 0) -> Tensor:
        """Entry t + shift of a table, `[B]`, or `[B, 1, …]` to multiply `like`.

        Raises:
            TypeError: t is no integer tensor.
            ValueError: t outside 1 … steps, or not one for each sample of `like`.
        """
        if t.dtype.is_floating_point or t.dtype in (torch.bool, torch.complex64):
            raise TypeError(f"t has dtype {t.dtype}: pass integers 1 ... {self.steps}")
        if t.ndim != 1 or (like is not None and len(t) != len(like)):
            raise ValueError(f"t has shape {tuple(t.shape)}: pass one step for each sample")
        if t.numel() and (int(t.min()) < 1 or int(t.max()) > self.steps):
            raise ValueError(f"t = {t.tolist()[:5]} outside 1 ... {self.steps}: steps count from 1")
        found = getattr(self, name).to(t.device)[t.long() + shift]
        return found if like is None else found.reshape(-1, *[1] * (like.ndim - 1))


@cache
def tables(setting: Setting) -> Tables:
    """The tables of a setting."""
    steps = setting.timesteps or tuple(range(1, setting.T + 1))
    return from_alpha_bars(alpha_bars(setting), steps)


def from_alpha_bars(kept: list[Any], steps: tuple[int, ...]) -> Tables:
    """The tables of ᾱ_0 = 1, ᾱ_1, … at these steps of the trained schedule."""
    pairs = list(pairwise(kept))
    beta = [MP.mpf(0)] + [1 - b / a for a, b in pairs]
    tilde = [MP.mpf(0)] + [(1 - b / a) * (1 - a) / (1 - b) for a, b in pairs]
    clipped = tilde[2:3] or beta[1:2]

    def column(values: list[Any]) -> Tensor:
        return torch.tensor([float(v) for v in values], dtype=torch.float64)

    def log(values: list[Any]) -> list[Any]:
        return [MP.log(v) if v > 0 else MP.mpf("-inf") for v in values]

    noise = [1 - a for a in kept]
    return Tables(
        timesteps=torch.tensor((0, *steps)),
        beta=column(beta),
        alpha=column([1 - b for b in beta]),
        alpha_bar=column(kept),
        sigma2=column(noise),
        log_snr=column(
            [MP.inf, *(a - b for a, b in zip(log(kept[1:]), log(noise[1:]), strict=True))]
        ),
        snr=column([MP.inf, *(a / b for a, b in zip(kept[1:], noise[1:], strict=True))]),
        tilde=column(tilde),
        log_tilde=column(log(tilde)),
        log_beta=column(log(beta)),
        clipped_log_tilde=column(log([tilde[0], *clipped, *tilde[2:]])),
        log_sigma2=column(log(noise)),
        prior_excess=column([MP.inf, *(-a - MP.log(1 - a) for a in kept[1:])]),
    )
