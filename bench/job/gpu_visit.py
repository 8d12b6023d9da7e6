"""A visit to a machine with a GPU: everything that only such a machine can tell, in ten minutes, in records.

It needs a checkout, Python, torch with CUDA and a compiler for it; no network, no installation. In this order, so that what
matters most is there if time runs out:

1. build the CUDA provider, and time the build;
2. prove its bits: noise and x_t equal the definition computed on the CPU, for all dtypes, odd shapes, far steps and indices;
3. contest at batches that fill caches and batches that do not: against eager torch, torch.compile's own fusion of randn and
   q_sample, and the peers that are installed; with the copy of x_0 in the same rounds as the roofline;
4. a short study, trained on the GPU.

Nothing is estimated: without a CUDA device, or where the provider does not build, there is no record.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.measure.throughput.contest import KIND as CONTEST_KIND
from bench.measure.throughput.contest import contest
from bench.measure.throughput.problem import DTYPES, SEED, STEPS
from bench.record import Record, new_record, series
from ddpm_ref.kernels import fused_q_sample, q_sample_providers
from ddpm_ref.noise import NoiseStream
from ddpm_ref.process import q_sample
from ddpm_ref.schedule import linear_schedule

KIND = "gpu-visit"
SHAPES = ("256x3x64x64", "128x3x32x32", "4096x3x64x64")
"""The two shapes of the CPU's contest, and one of 200 MB that no cache holds."""
BIT_SHAPES = ((1, 1), (7, 3, 5, 11), (13, 64), (2, 3, 37, 41), (257, 129), (31, 3, 64, 64))
_PLACES = ((1, 0), (2**31 + 5, 2**33 + 1))
"""(step, first_index): the start, and beyond what 32 bits with a sign hold."""


class NotMeasuredError(Exception):
    """Why nothing can be measured here, in a few words."""


@dataclass(frozen=True)
class VisitPlan:
    """What a visit does.

    Attributes:
        shapes: of the contest.
        rounds: turns of every contender.
        study_steps: optimizer steps of each run of the short study; 0 leaves it out.
    """

    shapes: tuple[str, ...] = SHAPES
    rounds: int = 41
    study_steps: int = 600


def require_gpu() -> None:
    """Check what a visit needs.

    Raises:
        NotMeasuredError: there is no CUDA device, or the CUDA provider does not work here.
    """
    if not torch.cuda.is_available():
        raise NotMeasuredError("no CUDA device")
    reason = q_sample_providers()["cuda"]
    if reason is not None:
        raise NotMeasuredError(f"the CUDA provider does not work here: {reason}")


def visit(plan: VisitPlan, *, said: Callable[[str], object] = print) -> Iterator[Record]:
    """Measure and yield each record as soon as it is complete: bits and contests, then the study.

    Args:
        plan: what to do.
        said: told what was found, line by line.

    Raises:
        NotMeasuredError: as `require_gpu`.
    """
    require_gpu()
    yield _kernel_record(plan, said)
    if plan.study_steps:
        yield _study_record(plan)


def _kernel_record(plan: VisitPlan, said: Callable[[str], object]) -> Record:
    """Build, bits and contests: one record of kind `gpu-visit`."""
    seconds = _build_seconds()
    said(f"built and called in {seconds:.1f} s")
    bits = list(compare_bits("cuda", "cuda"))
    wrong = [case for case in bits if case["different_noise"] or case["different_x_t"]]
    said(f"bits: {len(bits) - len(wrong)} of {len(bits)} cases equal the definition on the CPU")
    cases = [
        contest(shape, threads=torch.get_num_threads(), rounds=plan.rounds, device="cuda", seed=0)
        for shape in plan.shapes
    ]
    return new_record(
        KIND,
        protocol={
            "shapes": list(plan.shapes),
            "rounds": plan.rounds,
            "necessary_bytes_per_element": 12,
            "contest": CONTEST_KIND,
        },
        seeds=(0,),
        samples={
            f"{case['shape']}, {name}": series(values, unit="s", better="lower")
            for case in cases
            for name, values in case.pop("seconds").items()
        },
        results={
            "device": torch.cuda.get_device_name(),
            "build_seconds": seconds,
            "bits": bits,
            "bits_equal": not wrong,
            "contests": cases,
        },
    )


def compare_bits(provider: str, device: str) -> Iterator[dict[str, Any]]:
    """One row per dtype, shape and place in the stream: how many elements differ from the CPU's definition."""
    schedule, stream = linear_schedule(STEPS), NoiseStream(SEED)
    for name, dtype in DTYPES.items():
        for shape in BIT_SHAPES:
            generator = torch.Generator().manual_seed(shape[0])
            x0 = torch.rand(shape, generator=generator).mul(2).sub(1).to(dtype)
            t = torch.randint(1, STEPS + 1, shape[:1], generator=generator)
            for step, first in _PLACES:
                x_t, noise = fused_q_sample(
                    x0.to(device),
                    t.to(device),
                    schedule,
                    stream,
                    step=step,
                    first_index=first,
                    provider=provider,
                )
                truth = stream.normal(shape, step=step, first_index=first, dtype=dtype)
                yield {
                    "dtype": name,
                    "shape": "x".join(map(str, shape)),
                    "step": step,
                    "first_index": first,
                    "different_noise": _different(noise.cpu(), truth),
                    "different_x_t": _different(x_t.cpu(), q_sample(x0, t, schedule, truth)),
                }


def _different(got: Tensor, truth: Tensor) -> int:
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[truth.element_size()]
    return int((got.contiguous().view(words) != truth.contiguous().view(words)).sum())


def _build_seconds() -> float:
    start = time.perf_counter()
    x0 = torch.zeros(3, 5, device="cuda")
    t = torch.ones(3, dtype=torch.int64, device="cuda")
    fused_q_sample(x0, t, linear_schedule(STEPS), NoiseStream(SEED), step=0, provider="cuda")
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _study_record(plan: VisitPlan) -> Record:
    from bench.measure.study.design import FACTORIAL, Design
    from bench.measure.study.record import run_study
    from bench.measure.study.task import Setting

    design = Design(arms=FACTORIAL, rates=(3e-3,), steps=plan.study_steps, tuning_steps=50)
    setting = Setting(design, data="digits", device="cuda", provider="cuda")
    return run_study(setting, command="ddpm-bench gpu-visit")
