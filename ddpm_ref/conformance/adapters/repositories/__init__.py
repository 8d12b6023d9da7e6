"""Repositories that are no packages, under the laws by the path of a checkout: `improved-diffusion:PATH`.

    implementations("improved-diffusion", Path("~/src/improved-diffusion"))

Nothing of them is copied or changed: an adapter imports the checkout's own files under a name of its own, so that two of them with a module
called `diffusion` do not meet, and calls them. What a checkout imports for other purposes (training, logging) and is not installed is
stood in for by an empty module (`checkout.stand_ins`).
"""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

from ddpm_ref.conformance.implementation import Implementation


@dataclass(frozen=True)
class Repository:
    """A repository that has an adapter.

    Attributes:
        name: what `ddpm-bench verify --against NAME:PATH` calls it.
        module: module in this package with `implementations(path)`.
        file: a file that a checkout has, by which it is recognized.
        url: where it is published.
        licence: its licence.
    """

    name: str
    module: str
    file: str
    url: str
    licence: str


REPOSITORIES: dict[str, Repository] = {
    each.name: each
    for each in (
        Repository("improved-diffusion", "openai", "improved_diffusion/gaussian_diffusion.py", "https://github.com/openai/improved-diffusion", "MIT"),
        Repository("guided-diffusion", "openai", "guided_diffusion/gaussian_diffusion.py", "https://github.com/openai/guided-diffusion", "MIT"),
        Repository("DiT", "openai", "diffusion/gaussian_diffusion.py", "https://github.com/facebookresearch/DiT", "CC-BY-NC-4.0"),
        Repository("ddpm-torch", "ddpm_torch", "ddpm_torch/diffusion.py", "https://github.com/tqch/ddpm-torch", "MIT"),
        Repository("pytorch-ddpm", "pytorch_ddpm", "diffusion.py", "https://github.com/w86763777/pytorch-ddpm", "none stated"),
        Repository("minDiffusion", "min_diffusion", "mindiffusion/ddpm.py", "https://github.com/cloneofsimo/minDiffusion", "none stated"),
        Repository("latent-diffusion", "latent_diffusion", "ldm/models/diffusion/ddpm.py", "https://github.com/CompVis/latent-diffusion", "MIT"),
        Repository("score_sde_pytorch", "score_sde", "sde_lib.py", "https://github.com/yang-song/score_sde_pytorch", "Apache-2.0"),
        Repository("edm", "edm", "training/loss.py", "https://github.com/NVlabs/edm", "CC-BY-NC-SA-4.0"),
    )
}  # fmt: skip
"""Everything that `implementations` can build, by name."""


def is_repository(reference: str) -> bool:
    """`improved-diffusion:PATH`, as against a library or `FILE.py:CLASS`."""
    return reference.partition(":")[0] in REPOSITORIES


def implementations(name: str, path: Path) -> tuple[Implementation, ...]:
    """The repository's adapters.

    Args:
        name: a name in `REPOSITORIES`.
        path: a checkout.

    Raises:
        ValueError: the path is not a checkout of it.
        ModuleNotFoundError: the repository's own mathematics needs a package that is not installed.
    """
    repository, root = REPOSITORIES[name], Path(os.path.expanduser(path)).resolve()
    if not (root / repository.file).is_file():
        raise ValueError(
            f"{name}: {str(path)!r} has no {repository.file}, so it is not a checkout: git clone {repository.url}, then {name}:FOLDER"
        )
    module = importlib.import_module(f"{__name__}.{repository.module}")
    built: tuple[Implementation, ...] = module.implementations(root)
    return built
