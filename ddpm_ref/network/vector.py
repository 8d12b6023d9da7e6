r"""Networks for vectors: a multilayer perceptron, and a linear map of limited rank for every noise level.

Both take `x_t` `[B, *dims]` and see its D = ∏ dims numbers in a row, so images pass as well.

**Linear, rank h.** One matrix for each t, written as a product so that its rank cannot exceed h:

    f(x_t, t) = A_t B_t x_t + b_t,        A_t ∈ R^{D×h},  B_t ∈ R^{h×D}.                                           (1)

Trained by the squared error of its own output at every t, its optimum is reduced-rank regression (Izenman 1975), for which the excess over
the exact denoiser is known in closed form on Gaussian data (`rank_limited_excess`). A_t starts at 0 and B_t at random: the
zero map is not a stationary point unless every direction already is, and a product of two matrices has no local minimum but the global one
(Baldi & Hornik 1989).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddpm_ref.network.layers import ZeroLinear, time_embedding
from ddpm_ref.validation import check_count


class MLP(nn.Module):
    """`depth` linear layers with ReLU between them; t enters beside x_t as its embedding, eq. (3) of `ddpm_ref.network`.

    With the defaults the toy network of Li & He 2025 (5 layers, ReLU, width 256). The last layer starts at zero.

    Args:
        channels: the first of dims, where `shape` is not given: vectors `[B, channels]`.
        shape: dims of one example.
        width: of the hidden layers.
        depth: linear layers, ≥ 2.
        time_features: numbers of the embedding of t, even.
        time_input: False holds the embedding at t = 1: the same network, weight for weight, that cannot tell the steps apart.
        steps: T of the schedule that t indexes.
        outputs: first of the output's dims; None = that of the input.
    """

    def __init__(
        self,
        channels: int = 1,
        shape: Sequence[int] | None = None,
        width: int = 256,
        depth: int = 5,
        time_features: int = 64,
        time_input: bool = True,
        steps: int = 1000,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        dims = tuple(shape or (channels,))
        check_count("width", width)
        check_count("depth", depth, least=2)
        if time_features < 2 or time_features % 2:
            raise ValueError(
                f"time_features = {time_features}; half of them are sines: pass an even number >= 2"
            )
        self.time_features, self.time_input, self.steps = time_features, time_input, steps
        self.outputs = (outputs or dims[0], *dims[1:])
        self.enter = nn.Linear(math.prod(dims) + time_features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 2))
        self.leave = ZeroLinear(width, math.prod(self.outputs))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, *dims]` at the steps `t` `[B]` (1 … `steps`)."""
        seen = t if self.time_input else torch.ones_like(t)
        embedding = time_embedding(seen, self.time_features, self.steps).to(x_t.dtype)
        h = functional.relu(self.enter(torch.cat([x_t.flatten(1), embedding], dim=1)))
        for layer in self.hidden:
            h = functional.relu(layer(h))
        prediction: Tensor = self.leave(h)
        return prediction.view(-1, *self.outputs)


class LowRank(nn.Module):
    """Eq. (1): for every t = 1 … T a linear map of rank ≤ h with a bias.

    It has T·(2h + 1)·D parameters: choose a small T.

    Args:
        channels: the first of dims, where `shape` is not given: vectors `[B, channels]`.
        shape: dims of one example.
        rank: h.
        steps: T.
        outputs: first of the output's dims; None = that of the input.
    """

    def __init__(
        self,
        channels: int = 1,
        shape: Sequence[int] | None = None,
        rank: int = 1,
        steps: int = 1000,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        dims = tuple(shape or (channels,))
        check_count("rank", rank)
        self.outputs = (outputs or dims[0], *dims[1:])
        size, out = math.prod(dims), math.prod(self.outputs)
        self.read = nn.Parameter(torch.randn(steps, size, rank) / math.sqrt(size))
        self.write = nn.Parameter(torch.zeros(steps, rank, out))
        self.bias = nn.Parameter(torch.zeros(steps, out))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, *dims]` at the steps `t` `[B]`, integers 1 … `steps`."""
        if t.is_floating_point():
            raise TypeError(
                "a low-rank network has one matrix per step and none between: train it without continuous t"
            )
        # Rows of one t lie together, so that each map is read once and not copied for every row.
        order = t.argsort(stable=True)
        counts = torch.bincount(t, minlength=len(self.bias) + 1)[1:].tolist()
        maps = zip(self.read.unbind(), self.write.unbind(), self.bias.unbind(), strict=True)
        groups = zip(x_t.flatten(1)[order].split(counts), maps, strict=True)
        parts = [x @ read @ write + bias for x, (read, write, bias) in groups if len(x)]
        if not parts:
            return x_t.new_zeros(0, *self.outputs)
        return torch.cat(parts)[order.argsort()].view(-1, *self.outputs)
