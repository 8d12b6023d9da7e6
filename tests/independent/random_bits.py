"""Counter-based random numbers: Philox 4×64 (Salmon et al. 2011) keyed by (seed, step), one counter range for each sample."""

import numpy as np
import torch
from torch import Tensor


def normal(shape: tuple[int, ...], seed: int, step: int, first_index: int) -> Tensor:
    """Standard normal float32 `shape`; sample i depends on (seed, step, first_index + i) only."""
    count = int(np.prod(shape[1:], dtype=np.int64))
    key = np.array([seed, step], dtype=np.uint64)
    rows = [
        np.random.Generator(
            np.random.Philox(key=key, counter=np.array([0, 0, first_index + i, 1], dtype=np.uint64))
        ).standard_normal(count)
        for i in range(shape[0])
    ]
    drawn = np.stack(rows) if rows else np.zeros((0, count))
    return torch.from_numpy(drawn).to(torch.float32).reshape(shape)


def whole_number(below: int, seed: int) -> int:
    """A uniform integer 0 … below − 1 from a seed."""
    bits = np.random.Philox(key=np.array([seed, 2**63], dtype=np.uint64))
    return int(np.random.Generator(bits).integers(below))
