"""The one data set that is always there: 1,797 real scans of handwritten digits.

Each scan is 8 × 8 pixels of 17 grey levels k = 0 … 16 (counts of set pixels in 4 × 4 blocks of a 32 × 32 bitmap), placed at
k/8 − 1 on [−1, 1]: exact in every floating-point format down to bfloat16.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
(doi 10.24432/C50P49), its test part, as distributed with scikit-learn.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_ref.validation import unknown_name

DIGIT_LEVELS = 17


def digits() -> Tensor:
    """All scans, float32 `[1797, 1, 8, 8]` on the 17 levels k/8 − 1.

    Raises:
        ModuleNotFoundError: scikit-learn, which carries the scans, is not installed.
    """
    from sklearn.datasets import load_digits

    grey = torch.from_numpy(load_digits().images).float()
    return (grey / 8 - 1).unsqueeze(1)


_EMBEDDED: dict[str, Callable[[], Tensor]] = {"digits": digits}
"""Data sets that need no file: name → loader of all images."""


def embedded(name: str) -> Tensor:
    """The images of an embedded data set, float32 `[N, C, H, W]` on [−1, 1].

    Raises:
        ValueError: a data set that has to be read from files.
    """
    if name not in _EMBEDDED:
        raise ValueError(
            f"{unknown_name('embedded data set', name, _EMBEDDED)} Images from elsewhere are passed "
            "as a tensor: train(config, data=images)"
        )
    return _EMBEDDED[name]()
