"""The GPU visit where there is no GPU: it says so and invents nothing. Its comparison of bits is tried on the CPU."""

import argparse
from pathlib import Path

import pytest
import torch

from bench.commands import gpu_visit as command
from bench.job import gpu_visit
from bench.job.gpu_visit import NotMeasuredError, VisitPlan, compare_bits, require_gpu, visit

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: visit it")


def parsed(out: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(["--out", str(out)])


@no_gpu
def test_without_a_gpu_nothing_is_measured_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(parsed(tmp_path)) == 1
    assert capsys.readouterr().err == "not measured here: no CUDA device\n"
    assert list(tmp_path.iterdir()) == []


@no_gpu
def test_no_record_comes_without_a_gpu() -> None:
    with pytest.raises(NotMeasuredError, match="no CUDA device"):
        next(visit(VisitPlan()))


def test_a_provider_that_does_not_build_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_visit, "q_sample_providers", lambda: {"cuda": "no nvcc"})
    with pytest.raises(NotMeasuredError, match="does not work here: no nvcc"):
        require_gpu()


def test_equal_bits_are_found_equal_for_every_dtype_and_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_visit, "BIT_SHAPES", ((1, 1), (7, 3, 5, 11)))
    rows = list(compare_bits("eager", "cpu"))
    assert len(rows) == 4 * 2 * 2  # dtypes x shapes x places
    assert not any(row["different_noise"] or row["different_x_t"] for row in rows)
    assert {row["first_index"] for row in rows} > {0}


def test_a_different_bit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gpu_visit.fused_q_sample

    def flawed(x0: torch.Tensor, *others: object, **options: object) -> tuple:
        x_t, noise = real(x0, *others, **options)
        words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x_t.element_size()]
        x_t.view(words).view(-1)[-1] ^= 1
        return x_t, noise

    monkeypatch.setattr(gpu_visit, "fused_q_sample", flawed)
    monkeypatch.setattr(gpu_visit, "BIT_SHAPES", ((7, 3, 5),))
    for row in compare_bits("eager", "cpu"):
        assert (row["different_noise"], row["different_x_t"]) == (0, 1)
