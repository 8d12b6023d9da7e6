"""What may be timed: every planted defect is refused, every honest contender passes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.measure.throughput import proof
from bench.measure.throughput.contenders import FORMING, NOISING, Call, Contender
from bench.measure.throughput.problem import Problem, parse_shape, problem
from bench.measure.throughput.proof import WrongResultError, verify
from bench.terminal.usage import UsageError
from ddpm_ref.process import q_sample

SHAPE = "11x3x13x7"
Defect = Callable[[Problem], Call]


@pytest.fixture(scope="module")
def batch() -> Problem:
    return problem(SHAPE, backend="eager")


def definition(p: Problem) -> Call:
    def call(step: int) -> tuple[Tensor, Tensor]:
        eps = p.stream.normal(tuple(p.x0.shape), step=step)
        return q_sample(p.x0, p.t, p.schedule, eps), eps

    return call


def drawn(p: Problem, make: Callable[[Tensor], Tensor], scale: float = 1.0) -> Call:
    """A peer that draws from torch's generator and forms x_t as it likes."""

    def call(step: int) -> tuple[Tensor, Tensor]:
        eps = torch.randn_like(p.x0) * scale
        return make(eps), eps

    return call


def own(build: Defect) -> Contender:
    return Contender("mine", "own", build, 3, provider="eager")


def peer(build: Defect) -> Contender:
    return Contender("theirs", "peer", build, 8)


@pytest.mark.parametrize("table", [NOISING, FORMING], ids=["noising", "forming"])
def test_every_available_contender_is_right(batch: Problem, table: dict[str, Contender]) -> None:
    for contender in table.values():
        reason = contender.unavailable(batch.device)
        # the compiled provider generates code, for which tests/test_kernels.py has the time
        if reason is None and contender.provider != "compiled":
            assert verify(contender, contender.build(batch), batch)


def test_one_flipped_bit_in_the_last_sample_is_found(batch: Problem) -> None:
    def flipped(p: Problem) -> Call:
        def call(step: int) -> tuple[Tensor, Tensor]:
            x_t, eps = definition(p)(step)
            x_t.view(torch.int32)[-1, -1, -1, -1] ^= 1
            return x_t, eps

        return call

    assert "all samples" in verify(own(definition), definition(batch), batch)
    with pytest.raises(WrongResultError, match="x_t differs from the definition in 1 elements"):
        verify(own(flipped), flipped(batch), batch)


def test_of_a_large_batch_first_middle_and_last_samples_are_compared(
    batch: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "DEFINITION_LIMIT", batch.elements - 1)

    def wrong_at(sample: int) -> Defect:
        def build(p: Problem) -> Call:
            def call(step: int) -> tuple[Tensor, Tensor]:
                x_t, eps = definition(p)(step)
                eps[sample] *= -1
                return x_t, eps

            return call

        return build

    assert "3 of 11 samples" in verify(own(definition), definition(batch), batch)
    for sample in (0, 5, 10):
        with pytest.raises(WrongResultError, match="ε differs"):
            verify(own(wrong_at(sample)), wrong_at(sample)(batch), batch)


PEER_DEFECTS: dict[str, tuple[Defect, str]] = {
    "t counted from 0": (
        lambda p: drawn(p, lambda e: q_sample(p.x0, (p.t - 1).clamp(1), p.schedule, e)),
        "x_t is off",
    ),
    "noise permuted in x_t only": (
        lambda p: drawn(p, lambda e: q_sample(p.x0, p.t, p.schedule, e.flip(0))),
        "x_t is off",
    ),
    "variance 1.5": (
        lambda p: drawn(p, lambda e: q_sample(p.x0, p.t, p.schedule, e), scale=1.5**0.5),
        "ε has variance",
    ),
    "float64 result": (
        lambda p: drawn(p, lambda e: q_sample(p.x0, p.t, p.schedule, e).double()),
        "returned torch.float64",
    ),
    "NaN": (lambda p: drawn(p, lambda e: e * torch.nan), "x_t is off by nan"),
    "uniform of the right variance but a mean": (
        lambda p: lambda step: (
            lambda e: (q_sample(p.x0, p.t, p.schedule, e), e)
        )(torch.rand_like(p.x0) * 12**0.5),
        "ε has mean",
    ),
    "the same noise every time": (
        lambda p: lambda step: (
            lambda e: (q_sample(p.x0, p.t, p.schedule, e), e)
        )(p.noise.clone()),
        "same at every call",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PEER_DEFECTS)
def test_a_wrong_peer_is_refused_with_the_reason(batch: Problem, name: str) -> None:
    build, reason = PEER_DEFECTS[name]
    with pytest.raises(WrongResultError, match=reason):
        verify(peer(build), build(batch), batch)


def test_contenders_say_why_they_cannot_run() -> None:
    cpu = torch.device("cpu")
    assert "cuda tensors only" in (NOISING["cuda"].unavailable(cpu) or "")
    absent = Contender("absent", "peer", definition, 8, package="no_such_package_anywhere")
    assert absent.unavailable(cpu) == "no_such_package_anywhere is not installed"
    assert NOISING["torch eager"].unavailable(cpu) is None


@pytest.mark.parametrize("text", ["", "3x", "3x-1", "3.5x2", "0x3", "3 x 4"])
def test_a_shape_that_is_none_is_an_error_of_use(text: str) -> None:
    with pytest.raises(UsageError, match="256x3x64x64"):
        parse_shape(text)


def test_a_problem_has_the_same_bits_whenever_it_is_made() -> None:
    first, second = problem("7x2x3"), problem("7x2x3")
    assert torch.equal(first.x0, second.x0)
    assert torch.equal(first.t, second.t)
    assert first.t.min() >= 1
    assert first.x0.abs().max() <= 1
