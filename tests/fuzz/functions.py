"""Every public function with a strategy for its arguments, and where one is short, its formula in 40 digits (mpmath)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from hypothesis import strategies as st
from mpmath import mp as default
from torch import Tensor

import ddpm_ref as d
from ddpm_ref.parameterization import PARAMETERIZATIONS
from ddpm_ref.sampler import SamplerRule, step
from tests.fuzz.arguments import (
    DTYPES,
    junk,
    rarely,
    schedules,
    seeds,
    shapes,
    step_indices,
    tensors,
)
from tests.fuzz.property import BrokenProperty, Call

mp = default.clone()
mp.dps = 40

spaces = rarely(junk, st.sampled_from(sorted(PARAMETERIZATIONS)))
weightings = rarely(
    junk,
    st.one_of(
        st.sampled_from(sorted(d.WEIGHTINGS)),
        st.floats(1e-3, 1e3).map(d.min_snr),
        st.tuples(st.floats(1e-3, 1e3), st.floats(0, 5)).map(lambda pair: d.p2(*pair)),
    ),
)
numbers = st.one_of(
    st.floats(), st.integers(-9, 9), st.integers(2**62, 10**30), junk
)  # none that would take hours
counts = rarely(junk, st.integers(-3, 40))


def shrink(x_t: Tensor, t: Tensor) -> Tensor:
    """A model."""
    return 0.5 * x_t


models = rarely(
    st.one_of(junk, st.sampled_from([lambda x, t: x[:0], lambda x, t: None, lambda x, t: (x, x, x), lambda x, t: x.long()])),
    st.sampled_from([shrink, lambda x, t: (0.5 * x, -torch.ones_like(x)), torch.nn.Identity().forward and (lambda x, t: x.add_(1))]),
)  # fmt: skip


# ---------------------------------------------------------------- schedules


@st.composite
def constructors(draw: Any) -> Call:
    """The three by name, with any parameters."""
    name = draw(st.sampled_from(["linear", "cosine", "sigmoid"]))
    options = {
        "linear": {"beta_start": st.floats(0, 1), "beta_end": st.floats(0, 1)},
        "cosine": {"s": st.floats(0, 1), "max_beta": st.floats(0, 1)},
        "sigmoid": {"start": st.floats(-9, 3), "end": st.floats(-3, 9), "tau": st.floats(0, 3), "max_beta": st.floats(0, 1)},
    }[name]  # fmt: skip
    given = {"T": draw(counts)}
    for option, usual in options.items():
        if draw(st.booleans()):
            given[option] = draw(rarely(numbers, usual))
    return Call(d.SCHEDULES[name], given)


@st.composite
def from_rows(draw: Any) -> Call:
    """Schedules from rows of numbers."""
    rows = rarely(junk, st.lists(st.one_of(st.floats(0, 1), st.floats()), max_size=6))
    if draw(st.booleans()):
        return Call(d.schedule_from_beta, {"beta": draw(rows)})
    falling = st.lists(st.floats(-800, 800), max_size=6).map(lambda v: sorted(v, reverse=True))
    return Call(d.schedule_from_log_snr, {"log_snr": draw(st.one_of(rows, falling))})


@st.composite
def of_schedules(draw: Any) -> Call:
    """What a schedule does."""
    schedule = draw(schedules())
    match draw(st.integers(0, 3)):
        case 0:
            steps = st.lists(st.integers(1, schedule.T), min_size=1).map(
                lambda v: sorted({*v, schedule.T})
            )
            odd = st.one_of(junk, st.lists(st.integers(-2, schedule.T + 2)))
            return Call(schedule.respaced, {"timesteps": draw(rarely(odd, steps))})
        case 1:
            return Call(
                d.rescale_to_zero_terminal_snr, {"schedule": draw(rarely(junk, st.just(schedule)))}
            )
        case 2:
            names = st.sampled_from(
                [
                    "beta",
                    "alpha_bar",
                    "one_minus_alpha_bar",
                    "log_snr",
                    "posterior_variance",
                    "T",
                    "x",
                ]
            )
            return Call(
                schedule.lookup,
                {"table": draw(names), "t": draw(rarely(junk, step_indices(3, schedule.T)))},
            )
        case _:
            return Call(
                schedule.original_timesteps, {"t": draw(rarely(junk, step_indices(3, schedule.T)))}
            )


def check_schedule_tables(call: Call, result: object) -> None:
    """β̃, 1−ᾱ and λ from β in 40 digits: relative 1e-12, as the contract says."""
    if not isinstance(result, d.Schedule):
        return
    kept, before, slack = mp.mpf(1), mp.mpf(1), mp.mpf("1e-12")
    for t in range(1, result.T + 1):
        beta = mp.mpf(result.beta[t].item())
        if not 0 < beta < 1:
            return  # zero terminal SNR: β_T = 1
        before, kept = kept, kept * (1 - beta)
        lost = 1 - kept
        slack += mp.mpf(2) ** -52 / (1 - beta)  # what rounding β to float64 does to 1 − β
        if lost == 0 or min(beta, lost) < 1e-30:
            return
        near(call, f"alpha_bar[{t}]", result.alpha_bar[t].item(), kept, slack * kept)
        near(
            call,
            f"log_snr[{t}]",
            result.log_snr[t].item(),
            mp.log(kept / lost),
            slack * (1 + abs(mp.log(kept / lost))),
        )
        variance = beta * (1 - before) / lost
        near(
            call,
            f"posterior_variance[{t}]",
            result.posterior_variance[t].item(),
            variance,
            slack * variance,
        )


# ---------------------------------------------------------------- batches


@st.composite
def batches(draw: Any) -> dict[str, Any]:
    """Two tensors of one shape and dtype (mostly), steps and a schedule."""
    shape = draw(shapes)
    schedule = draw(schedules())
    first = draw(rarely(junk, tensors(shape)))
    second = draw(rarely(tensors(draw(shapes)), tensors(shape)))
    if isinstance(first, Tensor) and isinstance(second, Tensor) and draw(st.booleans()):
        second = (
            second.detach().to_dense().to(first.dtype)
            if second.dtype in DTYPES and not second.is_meta
            else second
        )
    t = draw(rarely(junk, step_indices(shape[0] if shape else 1, schedule.T)))
    return {
        "first": first,
        "second": second,
        "t": t,
        "schedule": draw(rarely(junk, st.just(schedule))),
    }


@st.composite
def processes(draw: Any) -> Call:
    """q_sample, its posterior and its fused form."""
    b = draw(batches())
    place = {"t": b["t"], "schedule": b["schedule"]}
    match draw(st.integers(0, 2)):
        case 0:
            return Call(d.q_sample, {"x0": b["first"], "noise": b["second"], **place})
        case 1:
            return Call(d.q_posterior, {"x0": b["first"], "x_t": b["second"], **place})
        case _:
            given = {
                "x0": b["first"],
                **place,
                "stream": draw(rarely(junk, seeds.map(d.NoiseStream))),
            }
            given |= {"step": draw(rarely(numbers, st.integers(0, 2**32 - 1)))}
            given |= {"first_index": draw(rarely(numbers, st.integers(0, 2**62)))}
            given |= {"provider": draw(rarely(junk, st.sampled_from(["auto", "eager", "native"])))}
            return Call(d.fused_q_sample, given)


@st.composite
def parameterizations(draw: Any) -> Call:
    """Targets and conversions."""
    b = draw(batches())
    place = {"t": b["t"], "schedule": b["schedule"]}
    if draw(st.booleans()):
        return Call(
            d.target,
            {"parameterization": draw(spaces), "x0": b["first"], "eps": b["second"], **place},
        )
    given = {
        "prediction": b["first"],
        "x_t": b["second"],
        **place,
        "source": draw(spaces),
        "to": draw(spaces),
    }
    return Call(d.convert, given)


@st.composite
def objectives(draw: Any) -> Call:
    """Weights and losses."""
    b = draw(batches())
    rest = {
        "t": b["t"],
        "schedule": b["schedule"],
        "parameterization": draw(spaces),
        "weighting": draw(weightings),
    }
    if draw(st.booleans()):
        return Call(d.weight, rest)
    given = {"prediction": b["first"], "x0": b["second"], "eps": b["second"], **rest}
    # A weight that is 0 in float32 times an error that overflows is NaN: finite, but beyond the dtype.
    return Call(d.loss, given, nan_from_finite=_large(b["first"], b["second"]))


def _large(*tensors: object) -> bool:
    return any(
        isinstance(x, Tensor) and x.dtype in DTYPES and not x.is_meta and x.numel() and x.detach().to_dense().abs().max() > 1e15
        for x in tensors
    )  # fmt: skip


@st.composite
def weight_makers(draw: Any) -> Call:
    """min_snr and p2."""
    if draw(st.booleans()):
        return Call(d.min_snr, {"gamma": draw(numbers)})
    return Call(d.p2, {"k": draw(numbers), "gamma": draw(numbers)})


# ---------------------------------------------------------------- densities


def log_density(mean: Tensor, log_var: Tensor, x: Tensor) -> Tensor:
    """`Gaussian.log_prob` as a function."""
    return d.Gaussian(mean, log_var).log_prob(x)


@st.composite
def densities(draw: Any) -> Call:
    """KL, density, decoder."""
    shape = draw(shapes)
    parts = [draw(rarely(junk, tensors(draw(rarely(shapes, st.just(shape)))))) for _ in range(4)]
    match draw(st.integers(0, 2)):
        case 0:
            names = ("mean1", "log_var1", "mean2", "log_var2")
            return Call(d.gaussian_kl, dict(zip(names, parts, strict=True)))
        case 1:
            return Call(log_density, {"mean": parts[0], "log_var": parts[1], "x": parts[2]})
        case _:
            levels = draw(rarely(numbers, st.integers(2, 300)))
            x = parts[0]
            if (
                isinstance(levels, int)
                and 2 <= levels <= 300
                and isinstance(x, Tensor)
                and x.dtype in DTYPES[:2]
                and not x.is_meta
                and not x.is_sparse
            ):
                grey = (x.detach().nan_to_num().clamp(-9, 9) * levels).round().long() % levels
                x = (grey.double() * (2 / (levels - 1)) - 1).to(x.dtype)
            return Call(
                d.discretized_gaussian_log_likelihood,
                {"x": x, "mean": parts[1], "log_scale": parts[2], "levels": levels},
            )


@st.composite
def bounds(draw: Any) -> Call:
    """prior_kl, elbo, estimate_elbo, validation_loss."""
    shape = draw(st.one_of(shapes, st.just((3, 2))))
    schedule = draw(rarely(junk, schedules(5)))
    data = draw(rarely(junk, tensors(shape)))
    if draw(st.integers(0, 3)) == 0:
        return Call(d.prior_kl, {"x0": data, "schedule": schedule})
    given = {"model": draw(models), "schedule": schedule, "parameterization": draw(spaces)}
    given["batch_size"] = draw(rarely(numbers, st.integers(1, 9)))
    given["seed"] = draw(rarely(numbers, seeds))
    if draw(st.integers(0, 2)) == 0:
        given |= {
            "data": data,
            "weighting": draw(weightings),
            "evaluations": draw(rarely(numbers, st.integers(1, 64))),
        }
        return Call(d.validation_loss, given, nan_from_finite=True)
    given |= {
        "decoder": draw(rarely(junk, st.just("gaussian"))),
        "clip": draw(rarely(numbers, st.sampled_from([None, 1.0]))),
    }
    given["variance"] = draw(rarely(junk, st.sampled_from(["posterior", "beta"])))
    if draw(st.booleans()):
        return Call(
            d.elbo,
            {"x0": data, "draws": draw(rarely(numbers, st.integers(1, 2))), **given},
            nan_from_finite=True,
        )
    given["evaluations"] = draw(rarely(numbers, st.integers(20, 80)))
    return Call(d.estimate_elbo, {"data": data, **given}, nan_from_finite=True)


# ---------------------------------------------------------------- noise and samples


@st.composite
def noises(draw: Any) -> Call:
    """The stream at any address."""
    seed = draw(rarely(numbers, seeds))
    given: dict[str, Any] = {
        "shape": draw(rarely(st.one_of(junk, st.lists(numbers, max_size=3)), shapes)),
        "step": draw(rarely(numbers, st.integers(0, 2**32 - 1))),
        "first_index": draw(rarely(numbers, st.integers(0, 2**63 - 9))),
        "device": draw(rarely(junk, st.just("cpu"))),
        "use": draw(rarely(junk, st.sampled_from(list(d.Use)))),
    }
    kind = draw(st.sampled_from(["normal", "uniform", "integers"]))
    if kind == "integers":
        given |= {
            "low": draw(rarely(numbers, st.integers(-9, 0))),
            "high": draw(rarely(numbers, st.integers(1, 9))),
        }
    else:
        given["dtype"] = draw(rarely(junk, st.sampled_from(DTYPES)))

    def call(**arguments: Any) -> Tensor:
        return getattr(d.NoiseStream(seed), kind)(**arguments)

    call.__qualname__ = f"NoiseStream({str(seed)[:30]}).{kind}"
    return Call(call, given)


@st.composite
def samples(draw: Any) -> Call:
    """`sample`, one step, and rules."""
    if draw(st.integers(0, 3)) == 0:
        given = {
            "sampler": draw(rarely(junk, st.sampled_from(["ddpm", "ddim"]))),
            "variance": draw(rarely(junk, st.just("beta"))),
        }
        return Call(SamplerRule, {**given, "eta": draw(numbers), "clip": draw(numbers)})
    if draw(st.booleans()):
        b = draw(batches())
        rule = draw(
            st.sampled_from(
                [
                    SamplerRule(),
                    SamplerRule("ddim"),
                    SamplerRule("ddim", eta=0.5, clip=1.0),
                    SamplerRule(clip=True),
                ]
            )
        )
        given = {
            "prediction": b["first"],
            "x_t": b["second"],
            "t": b["t"],
            "schedule": b["schedule"],
        }
        large = _large(b["first"], b["second"])
        return Call(
            step, {**given, "parameterization": draw(spaces), "rule": rule}, nan_from_finite=large
        )
    given = {
        "model": draw(models),
        "shape": draw(rarely(junk, shapes)),
        "schedule": draw(rarely(junk, schedules(4))),
    }
    given |= {
        "parameterization": draw(spaces),
        "sampler": draw(rarely(junk, st.sampled_from(["ddpm", "ddim"]))),
    }
    given |= {
        "steps": draw(rarely(numbers, st.sampled_from([None, 1, 2]))),
        "seed": draw(rarely(numbers, seeds)),
    }
    given |= {
        "dtype": draw(rarely(junk, st.sampled_from([None, *DTYPES]))),
        "device": draw(rarely(junk, st.none())),
    }
    return Call(d.sample, given, nan_from_finite=True)


@st.composite
def oracles(draw: Any) -> Call:
    """Constructors of oracles, and what they answer."""
    size = draw(st.integers(1, 3))
    match draw(st.integers(0, 4)):
        case 0:
            given = {
                "mean": draw(rarely(junk, tensors((size,)))),
                "covariance": draw(rarely(junk, tensors((size, size)))),
            }
            return Call(d.GaussianOracle, given)
        case 1:
            given = {
                "weights": draw(rarely(junk, tensors((2,)))),
                "means": draw(rarely(junk, tensors((2, size)))),
            }
            return Call(
                d.MixtureOracle,
                {**given, "covariances": draw(rarely(junk, tensors((2, size, size))))},
            )
        case 2:
            return Call(
                draw(st.sampled_from([d.EmpiricalOracle, d.GaussianOracle.fit])),
                {"data": draw(rarely(junk, tensors(draw(shapes))))},
            )
        case 3:
            schedule = draw(schedules())
            given = {
                "eigenvalues": draw(
                    rarely(
                        junk,
                        tensors((size,)).map(
                            lambda x: x.abs() if x.dtype in DTYPES and not x.is_sparse else x
                        ),
                    )
                )
            }
            given |= {
                "rank": draw(rarely(numbers, st.integers(0, size))),
                "t": draw(rarely(junk, step_indices(2, schedule.T))),
            }
            given |= {
                "schedule": draw(rarely(junk, st.just(schedule))),
                "parameterization": draw(spaces),
            }
            return Call(d.rank_limited_excess, given, nan_from_finite=_large(given["eigenvalues"]))
        case _:
            oracle = d.GaussianOracle(torch.zeros(size), torch.eye(size))
            schedule = draw(schedules())
            x = draw(rarely(junk, tensors((2, size))))
            if draw(st.booleans()):
                return Call(oracle.log_prob, {"x0": x})
            given = {
                "x_t": x,
                "t": draw(rarely(junk, step_indices(2, schedule.T))),
                "schedule": draw(rarely(junk, st.just(schedule))),
            }
            return Call(oracle.denoise, given)


# ---------------------------------------------------------------- checks of values


def near(call: Call, what: str, found: float, wanted: Any, tolerance: Any) -> None:
    """|found − wanted| ≤ tolerance."""
    if not abs(mp.mpf(found) - wanted) <= tolerance:
        raise BrokenProperty(
            f"{what} = {found!r}, but {default.nstr(wanted, 20)} is right ({call.given})"
        )


def _usable(*values: object) -> bool:
    return all(isinstance(v, Tensor) and v.dtype == torch.float64 and not v.is_meta and v.layout == torch.strided and v.numel() for v in values) and all(
        bool(torch.isfinite(v.detach()).all()) and float(v.detach().abs().max()) < 1e100 for v in values if isinstance(v, Tensor)
    )  # fmt: skip


def check_kl(call: Call, result: object) -> None:
    """Eq. (1) of `gaussian` at the first element, relative 1e-12 of the sum of its parts."""
    parts = [call.given.get(name) for name in ("mean1", "log_var1", "mean2", "log_var2")]
    if call.function is not d.gaussian_kl or not isinstance(result, Tensor) or not _usable(*parts):
        return
    m1, l1, m2, l2 = (
        mp.mpf(part.detach().expand(result.shape).reshape(-1)[0].item()) for part in parts
    )
    wanted = (mp.exp(l1 - l2) - 1 - (l1 - l2) + (m1 - m2) ** 2 * mp.exp(-l2)) / 2
    if wanted < 1e300:
        near(
            call,
            "KL",
            result.detach().reshape(-1)[0].item(),
            wanted,
            1e-12 * wanted + mp.mpf("1e-300"),
        )


def check_loss(call: Call, result: object) -> None:
    """Weighted squared error of ε in ε space with weight 1: the plain mean, relative 1e-12."""
    given = call.given
    if (
        call.function is not d.loss
        or given["parameterization"] != "eps"
        or given["weighting"] != "simple"
    ):
        return
    if not isinstance(result, Tensor) or not _usable(
        given["prediction"], given["eps"], given["x0"]
    ):
        return
    error = [(mp.mpf(p) - mp.mpf(e)) ** 2 for p, e in zip(given["prediction"][0].detach().reshape(-1).tolist(), given["eps"][0].detach().reshape(-1).tolist(), strict=True)]  # fmt: skip
    wanted = sum(error) / len(error)
    near(call, "loss", result[0].item(), wanted, 1e-12 * wanted + mp.mpf("1e-300"))


def check_q_sample(call: Call, result: object) -> None:
    """√ᾱ x0 + √(1−ᾱ) ε from the log-SNR, 1e-12 of the larger term."""
    given = call.given
    if (
        call.function is not d.q_sample
        or not isinstance(result, Tensor)
        or not _usable(given["x0"], given["noise"])
    ):
        return
    t, schedule = int(given["t"][0]), given["schedule"]
    signal = (
        1 / (1 + mp.exp(-mp.mpf(schedule.log_snr[t].item())))
        if math.isfinite(schedule.log_snr[t])
        else mp.mpf(0)
    )
    x0, noise = (mp.mpf(given[name].detach()[0].reshape(-1)[0].item()) for name in ("x0", "noise"))
    first, second = mp.sqrt(signal) * x0, mp.sqrt(1 - signal) * noise
    near(
        call,
        "x_t",
        result[0].detach().reshape(-1)[0].item(),
        first + second,
        1e-12 * max(abs(first), abs(second)) + mp.mpf("1e-300"),
    )


CALLS: Mapping[str, st.SearchStrategy[Call]] = {
    "constructors": constructors(),
    "from_rows": from_rows(),
    "of_schedules": of_schedules(),
    "processes": processes(),
    "parameterizations": parameterizations(),
    "objectives": objectives(),
    "weight_makers": weight_makers(),
    "densities": densities(),
    "bounds": bounds(),
    "noises": noises(),
    "samples": samples(),
    "oracles": oracles(),
}
"""Group of functions → strategy of calls."""

CHECKS: Mapping[str, tuple[Callable[[Call, object], None], ...]] = {
    "constructors": (check_schedule_tables,),
    "from_rows": (check_schedule_tables,),
    "of_schedules": (check_schedule_tables,),
    "processes": (check_q_sample,),
    "objectives": (check_loss,),
    "densities": (check_kl,),
}
"""Group → checks of values against mpmath."""
