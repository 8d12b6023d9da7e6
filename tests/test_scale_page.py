"""The counted numbers of docs/scale.md are counted again: parameters, operations, activations, bytes of a run."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_ref.network import NETWORKS, UNet

pytestmark = pytest.mark.any_torch

PAGE = (Path(__file__).parents[1] / "docs/scale.md").read_text(encoding="utf-8")
FULL = {"base": 64, "multipliers": (1, 2, 2, 2), "attention": (2, 3), "blocks": 2}


def network(name: str) -> tuple[nn.Module, int]:
    """On the meta device: shapes without numbers; and the side of its images."""
    with torch.device("meta"):
        if name == "full":
            return UNet(channels=3, **FULL), 32
        return NETWORKS[name](channels=3), 64 if "64" in name else 32


def operations(name: str) -> int:
    built, side = network(name)
    with torch.device("meta"):
        x, t = torch.zeros(1, 3, side, side), torch.ones(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        built(x, t).sum().backward()
    return int(counter.get_total_flops())


def activations(name: str) -> int:
    """Bytes that the backward pass keeps of one more image: weights, which are kept too, cancel in the difference."""

    def kept(batch: int) -> int:
        built, side = network(name)
        sizes: list[int] = []
        with torch.device("meta"):
            x, t = torch.zeros(batch, 3, side, side), torch.ones(batch, dtype=torch.int64)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            built(x, t)
        return sum(sizes)

    return kept(2) - kept(1)


@pytest.mark.parametrize("name", ["full", "ddpm-cifar10", "ddpm-imagenet64"])
def test_what_is_counted_is_counted_again(name: str) -> None:
    label = "the `full` preset's" if name == "full" else f"`{name}`"
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {label}"))
    parameters, flops, kept = (cell.strip() for cell in row.split("|")[3:6])
    built, _ = network(name)
    assert int(parameters.replace(",", "")) == sum(p.numel() for p in built.parameters())
    assert float(flops) == pytest.approx(operations(name), rel=3e-3)
    assert float(kept.removesuffix(" MB")) * 1e6 == pytest.approx(activations(name), rel=3e-3)


@pytest.mark.parametrize("name", ["ddpm-cifar10", "ddpm-imagenet64"])
def test_bytes_of_a_run(name: str) -> None:
    built, _ = network(name)
    numbers = sum(p.numel() for p in built.parameters()) * 4
    pattern = rf"\| `{name}` \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) GB \|"
    found = re.search(pattern, PAGE)
    assert found is not None
    state, checkpoint, batch = (float(value) * 1e9 for value in found.groups())
    assert state == pytest.approx(5 * numbers, rel=1e-2)
    assert checkpoint == pytest.approx(4 * numbers, rel=1e-2)
    assert batch == pytest.approx(5 * numbers + 128 * activations(name), rel=1e-2)


def test_the_full_presets_network_is_the_one_that_is_counted() -> None:
    from bench.measure.study.designs import study

    assert study("cifar10").design.network_options == FULL


def test_estimates_follow_from_their_assumption() -> None:
    """Steps × batch × operations, over 3e14 a second and nine tenths of eight times that."""
    per_image = operations("ddpm-cifar10")
    total = 800_000 * 128 * per_image
    assert total == pytest.approx(3.8e18, rel=0.02)
    assert total / 3e14 / 3600 == pytest.approx(3.5, rel=0.02)
    assert total / (0.9 * 8 * 3e14) / 60 == pytest.approx(29, rel=0.02)
    image_net = 500_000 * 256 * operations("ddpm-imagenet64")
    assert image_net / 3e14 / 3600 == pytest.approx(70, rel=0.02)
    assert image_net / (0.9 * 8 * 3e14) / 3600 == pytest.approx(10, rel=0.05)
