r"""smalldiffusion: `Schedule…`, `PredX0`, `PredV`, `samples`, `IdealDenoiser`.

**Space.** It works with x = x_0 + σ ε, σ² = (1−ᾱ)/ᾱ: x is our x_t/√ᾱ, and the adapter multiplies or divides by √ᾱ = 1/√(1+σ²), by its
own `alpha(sigma)`. **Index.** `sigmas[0]` is our t = 1. **Tables** are float32 as built by `ScheduleDDPM`; `sigmas_from_betas` takes any
dtype, and is given float64 betas for float64 inputs.

Its losses make x and the target inside `get_loss`: a recording network and a recording loss make both visible.
`ScheduleSigmoid` is GeoDiff's, a sigmoid in β: no schedule of ours.
"""

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.instruments import (
    Recorder,
    column,
    each_step,
    float64_tables,
    installed_version,
    replaced,
)
from ddpm_ref.conformance.implementation import Convention, Implementation, Model, NotOffered
from ddpm_ref.conformance.setting import Setting

_SCHEDULES = {"linear": "ScheduleDDPM", "cosine": "ScheduleCosine"}
_DDPM, _DDIM = 0.5, 0.0
"""Its parameter mu of the two samplers."""


class SmallDiffusion(Implementation):
    """Schedules, losses for eps, x0 and v, `predict_eps`, the sampler with gam = 1."""

    one_step_a_call = True
    name = "smalldiffusion"
    parameterizations = ("eps", "x0", "v", "flow")
    first_index = 0

    def __init__(self) -> None:
        importlib.import_module("smalldiffusion")
        self.version = installed_version("smalldiffusion")

    def settings(self) -> Sequence[Setting]:
        """DDPM's linear schedule and the cosine one."""
        return (
            Setting("linear", 1000),
            Setting("cosine", 1000),
            Setting("linear", 2),
            Setting("cosine", 1),
            Setting("cosine", 13),
        )

    def tables(self, setting: Setting) -> Mapping[str, Tensor]:
        """SNR = 1/σ², and ᾱ by its `alpha(sigma)`; by its own code, in float64."""
        sigmas = _sigmas(setting, torch.float64)
        kept: Tensor = _models().alpha(sigmas)
        return {"snr": 1 / sigmas**2, "alpha_bar": kept, "one_minus_alpha_bar": sigmas**2 * kept}

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What `get_loss` shows to the network, times √ᾱ."""
        sigma = self._sigma(setting, t, x0)
        seen, _ = _inside_loss("eps", x0, sigma, noise)
        return seen * _root(sigma)

    def target(
        self, setting: Setting, parameterization: str, x0: Tensor, eps: Tensor, t: Tensor
    ) -> Tensor:
        """What `get_loss` compares the network's answer with; of `PredFlow`, which says ε − x0, the negative."""
        found = _inside_loss(parameterization, x0, self._sigma(setting, t, x0), eps)[1]
        return -found if parameterization == "flow" else found

    def convert(
        self, setting: Setting, prediction: Tensor, x_t: Tensor, t: Tensor, source: str, to: str
    ) -> Tensor:
        """`predict_eps`."""
        if to != "eps" or source == "flow":
            raise NotOffered(f"smalldiffusion converts eps, x0 and v to eps, not {source} to {to}")
        sigma = self._sigma(setting, t, x_t)
        network = _network(source, prediction)
        eps: Tensor = network.predict_eps(x_t / _root(sigma), sigma)
        return eps

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
        """`get_loss`, once per sample because it means over the batch: weight 1 in its own space."""
        if weighting != {"eps": "simple", "x0": "simple_x0", "v": "simple_v"}.get(parameterization):
            raise NotOffered("smalldiffusion weights each squared error with 1 in its own space")
        sigma = self._sigma(setting, t, x0)

        def one(step: int, i: slice) -> Tensor:
            network = _network(parameterization, prediction[i])
            value: Tensor = network.get_loss(x0[i], sigma[i], eps[i])
            return value.reshape(1)

        return each_step(t, one)

    def empirical_denoise(self, setting: Setting, data: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """`IdealDenoiser`, whose answer is ε."""
        sigma = self._sigma(setting, t, x_t)
        x = x_t / _root(sigma)
        ideal = _models().IdealDenoiser(list(data))
        return each_step(t, lambda step, i: x[i] - sigma[i] * ideal(x[i], sigma[i]))

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
        """One turn of `samples(sigmas=[σ_t, σ_{t−1}], gam=1)`: mu = 0.5 is DDPM, mu = 0 is DDIM with η = 0."""
        if (sampler == "ddim" and eta != 0) or parameterization == "flow":
            raise NotOffered("smalldiffusion's DDIM has η = 0, and its flow another path")
        mu = _DDPM if sampler == "ddpm" else _DDIM
        sigmas = torch.cat(
            [torch.zeros(1, dtype=x_t.dtype), _sigmas(setting, x_t.dtype).to(x_t.dtype)]
        )

        def one(step: int, i: slice) -> Tensor:
            pair = sigmas[[step, step - 1]]
            network = _network(parameterization, prediction[i])
            with replaced(network, "rand_input", lambda count: noise[i]):
                stepped = next(_sampler(network, pair, mu, x_t[i] / _root(pair[0])))
            result: Tensor = stepped * _root(pair[1])
            return result

        return each_step(t, one)

    def _sigma(self, setting: Setting, t: Tensor, like: Tensor) -> Tensor:
        """σ `[B, 1, …]`, as `Schedule.sample_batch` and `generate_train_sample` hand it out."""
        return column(_sigmas(setting, like.dtype)[self.index(t)].to(like), like)


class WholeChain(Implementation):
    """`samples(model, schedule.sample_sigmas(T))`: it ends at the smallest σ and not at 0, so the data keep that noise."""

    name = "smalldiffusion: samples with sample_sigmas"
    first_index = 0

    final: tuple[float, ...] = ()
    """Noise levels appended to `sample_sigmas`."""

    def __init__(self) -> None:
        importlib.import_module("smalldiffusion")
        self.version = installed_version("smalldiffusion")
        self.conventions = (
            Convention(
                "the chain ends at σ_1",
                "`sample_sigmas` ends at the schedule's smallest σ, which it visits twice, and not at 0: what `samples` yields last "
                "still has noise of that level",
                'smalldiffusion/diffusion.py, Schedule.sample_sigmas ("includes initial and final sigmas")',
                _ToData,
                ("I16",),
            ),
        )

    def settings(self) -> Sequence[Setting]:
        """Short chains suffice."""
        return (Setting("cosine", 13),)

    def sample(
        self,
        setting: Setting,
        model: Model,
        shape: tuple[int, ...],
        parameterization: str,
        sampler: str,
    ) -> Tensor:
        """The whole loop from `sigmas[0]` times unit noise."""
        chain = _schedule(setting, torch.float64)
        levels = _sigmas(setting, torch.float64)

        def answer(x: Tensor, sigma: Tensor, *unused: object, **options: object) -> Tensor:
            step = int((levels - sigma).abs().argmin()) + 1
            return model(x * _root(sigma), torch.full((shape[0],), step))

        network = _network(parameterization, answer)
        network.input_dims = shape[1:]
        ends = torch.tensor(self.final, dtype=torch.float64)
        sigmas = torch.cat([chain.sample_sigmas(setting.T), ends])
        start = torch.randn(shape, dtype=torch.float64) * sigmas[0]
        mu = _DDPM if sampler == "ddpm" else _DDIM
        *_, last = _sampler(network, sigmas, mu, start)
        result: Tensor = last
        return result


class _ToData(WholeChain):
    """Adds a last step to σ = 0."""

    final = (0.0,)


def implementations() -> tuple[Implementation, ...]:
    """The library, and its loop over a whole chain."""
    return SmallDiffusion(), WholeChain()


def _models() -> ModuleType:
    return importlib.import_module("smalldiffusion.model")


def _chains() -> ModuleType:
    return importlib.import_module("smalldiffusion.diffusion")


@lru_cache(maxsize=32)
def _schedule(setting: Setting, dtype: torch.dtype) -> Any:
    """A schedule of the library; in float64 where samples are float64."""
    plain = (setting.beta, setting.log_snr, setting.timesteps) == (None, None, None)
    if setting.name not in _SCHEDULES or setting.zero_terminal_snr or not plain:
        raise NotOffered(f"smalldiffusion has no schedule {setting}")
    module = _chains()
    if dtype == torch.float64:
        with float64_tables(module):
            return getattr(module, _SCHEDULES[setting.name])(setting.T)
    return getattr(module, _SCHEDULES[setting.name])(setting.T)


def _sigmas(setting: Setting, dtype: torch.dtype) -> Tensor:
    sigmas: Tensor = _schedule(setting, dtype).sigmas
    return sigmas


def _root(sigma: Tensor) -> Tensor:
    """√ᾱ by the library's `alpha(sigma)`."""
    kept: Tensor = _models().alpha(sigma)
    return kept.sqrt()


def _network(parameterization: str, answer: Any) -> Any:
    """A recording network with the library's mixin and, for x0 and v, its modifier."""
    models = _models()
    plain = type("Recording", (Recorder, models.ModelMixin), {})
    modifiers = {
        "eps": lambda cls: cls,
        "x0": models.PredX0,
        "v": models.PredV,
        "flow": models.PredFlow,
    }
    if parameterization not in modifiers:
        raise NotOffered(f"smalldiffusion predicts eps, x0, v and the flow, not {parameterization}")
    return modifiers[parameterization](plain)(answer)


def _inside_loss(
    parameterization: str, x0: Tensor, sigma: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """(what `get_loss` shows to the network, what it compares the answer with)."""
    targets: list[Tensor] = []

    def recording_loss() -> Any:
        def compare(target: Tensor, answer: Tensor) -> Tensor:
            targets.append(target)
            return answer.sum()

        return compare

    network = _network(parameterization, torch.zeros_like(x0))
    network.get_loss(x0, sigma, eps, loss=recording_loss)
    return network.seen[0], targets[0]


def _sampler(network: Any, sigmas: Tensor, mu: float, start: Tensor) -> Any:
    """`samples` on the CPU, without building an Accelerator."""
    here = SimpleNamespace(device=torch.device("cpu"))
    return _chains().samples(
        network, sigmas, gam=1.0, mu=mu, batchsize=len(start), xt=start, accelerator=here
    )
