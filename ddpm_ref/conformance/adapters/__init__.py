"""Other people's code under the laws: one module per library, found by name.

A module here is imported only when its library is asked for, and imports the library only when its adapters are built:
naming a peer costs nothing. Each module has a function `implementations() -> tuple[Implementation, ...]`: the library as one
uses it, followed by *options* of it that behave differently under the laws (a scheduler with another variance type, a
loss with its noise permuted), each offering only what that option changes.

Nothing of the libraries is copied: adapters call them.
"""

import importlib
from dataclasses import dataclass

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.validation import unknown_name


@dataclass(frozen=True)
class Peer:
    """A library that has an adapter.

    Attributes:
        name: what `ddpm-bench verify --against` calls it.
        module: module in this package with `implementations()`.
        requires: what has to be importable; empty for code that is written down here.
        distribution: what pip calls it.
        licence: the library's licence.
    """

    name: str
    module: str
    requires: str
    distribution: str
    licence: str


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("diffusers", "diffusers", "diffusers", "diffusers", "Apache-2.0"),
        Peer(
            "denoising-diffusion-pytorch",
            "denoising_diffusion_pytorch",
            "denoising_diffusion_pytorch",
            "denoising-diffusion-pytorch",
            "MIT",
        ),
        Peer("azula", "azula", "azula", "azula", "MIT"),
        Peer("smalldiffusion", "smalldiffusion", "smalldiffusion", "smalldiffusion", "MIT"),
        Peer("flow-matching", "flow_matching", "flow_matching", "flow-matching", "CC-BY-NC-4.0"),
        Peer("article", "article", "", "", "written down here after the article"),
        Peer(
            "torchmetrics",
            "fid.torchmetrics",
            "torchmetrics",
            "torchmetrics[image]",
            "Apache-2.0",
        ),
        Peer("pytorch-fid", "fid.pytorch_fid", "pytorch_fid", "pytorch-fid", "Apache-2.0"),
        Peer("clean-fid", "fid.clean_fid", "cleanfid", "clean-fid", "MIT"),
        Peer(
            "torch-fidelity", "fid.torch_fidelity", "torch_fidelity", "torch-fidelity", "Apache-2.0"
        ),
        Peer("torcheval", "fid.torcheval", "torcheval", "torcheval", "BSD-3-Clause"),
    )
}
"""Everything that `implementations` can build, by name."""

FID = tuple(name for name, peer in PEERS.items() if peer.module.startswith("fid."))
"""The libraries among them that compute the FID and no diffusion."""


def implementations(name: str) -> tuple[Implementation, ...]:
    """The library's adapter, then the adapters of its options.

    Args:
        name: a name in `PEERS`.

    Raises:
        ValueError: there is no such peer (the message has the nearest names).
        ModuleNotFoundError: the library is not installed.
    """
    if name not in PEERS:
        raise unknown_name("library", name, PEERS)
    module = importlib.import_module(f"{__name__}.{PEERS[name].module}")
    built: tuple[Implementation, ...] = module.implementations()
    return built
