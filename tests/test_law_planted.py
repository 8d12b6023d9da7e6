"""Eight defects planted in the product at once: `verify` fails, and each of the eight is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.__main__ import main
from ddpm_ref import process, sampler, trainer
from ddpm_ref.conformance import Reference, reference
from ddpm_ref.objective import p2
from ddpm_ref.reverse import reverse_variance
from ddpm_ref.schedule import sigmoid_schedule

NAMED = {
    "sigmoid with tau": ("I24-alpha-bar", "tau"),
    "p2 with k": ("I7-definition", "p2(k="),
    "order of the average": ("I22-order", "average of a weight"),
    "variance beta of the sampler": ("I16-variance", "'beta'"),
    "posterior in half precision": ("I2-mean", "posterior(…).mean"),
    "draws of the bound": ("I12-average", "bounds of 16 draws"),
    "estimate of the bound": ("I12-estimate", "estimates from the closed form"),
    "chain in half precision": ("I15-chain", "DDIM chain"),
}


def _planted(patch: pytest.MonkeyPatch) -> None:
    """Each where a maintainer's slip would put it."""
    patch.setitem(
        reference.SCHEDULES,
        "sigmoid",
        lambda T, **words: (
            sigmoid_schedule(T, **{**words, "tau": 1.1 * words.get("tau", 1.0)})
            if "tau" in words
            else sigmoid_schedule(T, **words)
        ),
    )
    patch.setitem(reference._OTHER_WEIGHTINGS, "p2(k=2, gamma=0.5)", p2(1.0, 0.5))
    right_elbo, right_estimate = reference.elbo, reference.estimate_elbo
    patch.setattr(reference, "elbo", lambda *a, draws=1, **k: right_elbo(*a, draws=1, **k))
    patch.setattr(
        reference, "estimate_elbo", lambda m, data, *a, **k: right_estimate(m, data[:5], *a, **k)
    )
    patch.setattr(sampler, "reverse_variance", lambda _, s: reverse_variance("posterior", s))
    right_posterior = process.q_posterior

    def halved(x0: Tensor, x_t: Tensor, t: Tensor, schedule):  # type: ignore[no-untyped-def]
        found = right_posterior(x0, x_t, t, schedule)
        lost = x0.dtype in (torch.bfloat16, torch.float16)
        return type(found)(found.mean * (1.02 if lost else 1.0), found.log_var)

    patch.setattr(reference, "q_posterior", halved)
    patch.setattr(sampler, "compute_dtype", lambda dtype: dtype)
    right_finish = trainer._finish

    def early(state, *rest):  # type: ignore[no-untyped-def]
        state.ema.update_parameters(state.network)
        kept = [p.detach().clone() for p in state.ema.module.parameters()]
        count = state.ema.n_averaged.clone()
        step = right_finish(state, *rest)
        with torch.no_grad():
            for p, old in zip(state.ema.module.parameters(), kept, strict=True):
                p.copy_(old)
        state.ema.n_averaged.copy_(count)
        assert isinstance(step.ema, nn.Module)
        return step

    patch.setattr(trainer, "_finish", early)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and rows of `verify` on the product with all eight: some ten seconds, most of them for chains in bf16 and seeds of an estimate."""
    file: Path = tmp_path_factory.mktemp("planted") / "verdict.json"
    words = [word for law, _ in NAMED.values() for word in ("--law", law)]
    reference.schedule_of.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        _planted(patch)
        status = main(["verify", *words, "--json", str(file)])
    reference.schedule_of.cache_clear()
    return status, json.loads(file.read_text(encoding="utf-8"))["laws"]


def test_verify_fails_on_eight_defects_at_once(verdict: tuple[int, list[dict[str, Any]]]) -> None:
    assert verdict[0] == 1


@pytest.mark.parametrize("name", NAMED)
def test_each_of_eight_defects_at_once_is_named(
    name: str, verdict: tuple[int, list[dict[str, Any]]]
) -> None:
    law, words = NAMED[name]
    failed = [row for row in verdict[1] if row["law"] == law and row["status"] == "fail"]
    assert failed
    assert any(words in json.dumps(row, ensure_ascii=False) for row in failed)


def test_what_is_in_a_registry_is_under_the_laws() -> None:
    """A schedule, a weighting, a space or a variance that is added without its second formula is missed here."""
    from ddpm_ref.conformance.agreement.methods import METHODS
    from ddpm_ref.conformance.lawbook import truth
    from ddpm_ref.objective import TRAINING_WEIGHTINGS, WEIGHTINGS
    from ddpm_ref.parameterization import PARAMETERIZATIONS
    from ddpm_ref.reverse import VARIANCES
    from ddpm_ref.schedule import SCHEDULES

    assert set(truth.DEFINITIONS) == set(SCHEDULES)
    assert {s.name for s in Reference().settings() if s.beta is None} == set(SCHEDULES)
    assert set(truth.WEIGHTINGS) == {*WEIGHTINGS, *TRAINING_WEIGHTINGS}
    assert set(truth.PARAMETERIZATIONS) == set(PARAMETERIZATIONS)
    assert set(truth.VARIANCES) == set(VARIANCES)

    def asked(method: str, argument: str) -> set[str]:
        return {options[argument] for options in METHODS[method].offered(Reference())}

    for method in ("weight", "loss"):
        others = set(truth.OTHER_WEIGHTS_IN_X0)
        assert asked(method, "weighting") == {*WEIGHTINGS, *TRAINING_WEIGHTINGS, *others}
    for method in ("bound_term", "reverse_variance", "ancestral_step"):
        assert asked(method, "variance") == set(VARIANCES)
    for method in ("target", "weight", "loss", "bound_term", "sampler_step", "ancestral_step"):
        assert asked(method, "parameterization") == set(PARAMETERIZATIONS)
    assert asked("convert", "source") == asked("convert", "to") == set(PARAMETERIZATIONS)


def test_an_implementation_is_asked_about_the_spaces_that_it_declares() -> None:
    """What does not know the velocity of flow matching, or EDM's weighting, is never asked about it and does not fail for want of it."""
    from ddpm_ref.conformance import Implementation
    from ddpm_ref.conformance.agreement.methods import METHODS

    for name in ("target", "convert", "weight", "loss", "bound_term", "sampler_step"):
        words = {w for options in METHODS[name].offered(Implementation()) for w in options.values()}
        assert not {"flow", "edm", "simple_flow"} & words
        assert {"eps", "mean"} <= words
