"""The article's network: two convolutions, and no t."""

from torch import Tensor, nn
from torch.nn import functional

from ddpm_ref.network.layers import ZeroConv2d


class ArticleDenoiser(nn.Module):
    """Two 3 × 3 convolutions with a ReLU between them, and **no time input**: `t` is accepted and not read.

    Each output pixel sees 5 × 5 pixels and must guess from them how noisy they are. For data ~ N(0, s² I), seen in blocks of
    n pixels, the block's variance tells ᾱ_t s² + 1−ᾱ_t up to a relative error √(2/n), so that the guess is good where s²
    differs from 1 and impossible where s² = 1: then x_t ~ N(0, I) at *every* t, and the best ε-prediction without t is the
    constant multiple E_t[√(1−ᾱ_t)] x_t. Its error exceeds that of eq. (2) by exactly Var_t[√(1−ᾱ_t)] per pixel.

    Args:
        channels: C of the images.
        hidden: feature maps between the two convolutions.
        steps: T, which this network has no use for.
        outputs: channels of the output; None = `channels`.
    """

    def __init__(
        self, channels: int = 1, hidden: int = 64, steps: int = 1000, outputs: int | None = None
    ) -> None:
        super().__init__()
        del steps
        self.inner = nn.Conv2d(channels, hidden, 3, padding=1)
        self.outer = ZeroConv2d(hidden, outputs or channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict from `x_t` `[B, C, H, W]` alone; `t` `[B]` has no influence."""
        del t
        prediction: Tensor = self.outer(functional.relu(self.inner(x_t)))
        return prediction
