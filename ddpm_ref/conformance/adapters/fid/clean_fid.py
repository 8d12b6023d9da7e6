"""`cleanfid.fid`: PNG files through `compare_folders` in the mode `clean`, the stub as its feature model."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_ref.conformance.adapters.fid.stub import (
    SIDE,
    FidLibrary,
    FirstLayer,
    Pooled,
    as_bytes,
    bare,
    files,
    refused,
    reread,
    shown,
)
from ddpm_ref.conformance.implementation import Convention, Implementation

_MODE = "clean"


def bicubic(images: Tensor) -> Tensor:
    """Pillow's bicubic of each channel in float32, to 299 × 299, cut to 0 … 255 where it overshoots."""
    from PIL import Image

    def resized(channel: Tensor) -> Tensor:
        picture = Image.fromarray(channel.float().numpy())
        found = picture.resize((SIDE, SIDE), resample=Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(found)).double().clamp(0, 255)

    return torch.stack([torch.stack([resized(channel) for channel in one]) for one in images])


class _Bicubic(Implementation):
    """Reads a library that resizes by Pillow's bicubic filter."""

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """As if it had interpolated like TensorFlow."""
        return reread(super().network_input, images, form, bicubic)


class CleanFid(FidLibrary):
    """The functions under `compute_fid`, without the network that it downloads."""

    name = distribution = "clean-fid"
    conventions = (
        Convention(
            "bicubic with antialiasing",
            "images are resized to 299 × 299 by Pillow's bicubic filter and cut to 0 … 255, which is what the library is for (Parmar et al. 2022)",
            "cleanfid/resize.py, build_resizer('clean')",
            _Bicubic,
            ("I23-resize",),
        ),
    )

    def features(self, images: Tensor) -> Tensor:
        """`get_folder_features`."""
        return torch.from_numpy(_features(as_bytes(images), len(images)))

    def frechet_in_batches(self, real: Tensor, generated: Tensor, batch: int) -> float:
        """`fid_from_feats` of both, as `compare_folders` forms it."""
        pair = [_features(as_bytes(images), batch) for images in (real, generated)]
        return float(_module().fid_from_feats(*pair))

    def frechet_of_moments(
        self, mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor
    ) -> float:
        """`frechet_distance`."""
        moments = [part.numpy() for part in (mean1, covariance1, mean2, covariance2)]
        return float(_module().frechet_distance(*moments))

    def frechet_of_features(self, first: Tensor, second: Tensor) -> float:
        """`fid_from_feats`."""
        return float(_module().fid_from_feats(first.numpy(), second.numpy()))

    def network_input(self, images: Tensor, form: str) -> Tensor:
        """`InceptionV3W` around a first layer; files hold bytes, and floats are taken on 0 … 255."""
        refused(form, bytes=images)
        kind = importlib.import_module("cleanfid.inception_torchscript").InceptionV3W
        network = bare(kind, layers=FirstLayer(), resize_inside=False)
        return shown(lambda: _features(images, len(images), network))


def _module() -> ModuleType:
    return importlib.import_module("cleanfid.fid")


def _features(images: Tensor, batch: int, network: Any = None) -> Any:
    """Of uint8 images, by files; the stub is shown them in their own size, on 0 … 255, and takes 0 … 1."""
    stub = Pooled().eval()
    with files(images) as paths:
        return _module().get_folder_features(
            str(paths[0].parent),
            network or (lambda batch: stub(batch / 255)),
            num_workers=0,
            batch_size=batch,
            device=torch.device("cpu"),
            mode=_MODE,
            verbose=False,
            custom_fn_resize=None if network else np.float32,
        )


def implementations() -> tuple[Implementation, ...]:
    """One way."""
    importlib.import_module("cleanfid")
    return (CleanFid(),)
