r"""cloneofsimo/minDiffusion: `DDPM` and `ddpm_schedules` of `mindiffusion/ddpm.py`.

**Index.** Training draws t = 1 … T, sampling visits T … 1: ours. **Tables** are float32 (float64 inputs meet those that its own code makes with
float32 read as float64) with T + 1 entries, β_i = β1 + (β2 − β1) i/T for i = 0 … T;
the adapter states β_1 … β_T of that formula as its setting, the ones that its sampler's steps use.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import Recorder, float64_tables, replaced
from ddpm_ref.conformance.adapters.repositories.checkout import commit, file_module
from ddpm_ref.conformance.adapters.repositories.openai import image
from ddpm_ref.conformance.adapters.repositories.pytorch_ddpm import Drawn
from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.setting import Setting

_T, _FIRST, _LAST = 1000, 1e-4, 0.02


def implementations(root: Path) -> tuple[Implementation, ...]:
    """The one adapter."""
    module = file_module(root / "mindiffusion" / "ddpm.py", "checkout_of_mindiffusion")
    return (MinDiffusion(commit(root), module),)


class MinDiffusion(Implementation):
    """`DDPM` with a stub for its network."""

    name = "minDiffusion"
    dtypes = (torch.float64, torch.float32)

    def __init__(self, version: str, module: ModuleType) -> None:
        self.version, self._module = version, module

    def _chain(self, wide: bool) -> tuple[Any, Recorder]:
        network = Recorder()
        with float64_tables(self._module) if wide else nullcontext():
            return self._module.DDPM(network, (_FIRST, _LAST), _T), network

    def settings(self) -> Sequence[Setting]:
        """β_1 … β_T as its sampler applies them."""
        beta = tuple(_FIRST + (_LAST - _FIRST) * i / _T for i in range(1, _T + 1))
        return (Setting("minDiffusion", _T, beta=beta),)

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """Its tables from index 1."""
        chain, _ = self._chain(wide=True)
        return {"beta": 1 - chain.alpha_t[1:], "alpha_bar": chain.alphabar_t[1:]}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What `forward` shows to its network."""
        chain, network = self._chain(x0.dtype == torch.float64)
        with replaced(self._module, "torch", Drawn(t, image(noise))):
            chain(image(x0))
        return network.seen[0].reshape(x0.shape)
