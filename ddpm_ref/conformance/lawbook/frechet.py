r"""Laws on libraries that compute the FID: the distance of two Gaussians, sets in batches, and what the network is shown.

**A truth without a matrix root.** For covariances A and B = M A M with M symmetric and positive semidefinite, x ↦ Mx is the optimal map from
N(0, A) to N(0, B) (a gradient of a convex function, Brenier 1991), so that

    tr (A^½ B A^½)^½ = tr MA,        d² = ‖μ₁ − μ₂‖² + tr A + tr MAM − 2 tr MA = ‖μ₁ − μ₂‖² + tr (I − M) A (I − M).       (1)

It holds for singular A too. The matrices do not commute, and nothing has to be computed but products.

**Small samples.** d² of two samples of one law is not 0. For n draws each from N(·, σ²), with s² over n − 1 degrees of freedom and
c₄(n) = √(2/(n−1)) Γ(n/2)/Γ((n−1)/2), E s = c₄ σ,

    E d² = σ² (2/n + 2(1 − c₄²)) ≈ 3σ²/n.                                                                            (2)

**What the network is shown.** The FID's network is TensorFlow's of 2015-12-05 with its first nodes: bilinear to 299 × 299 with output pixel i read
at i·H/299 (no half-pixel shift), then (k − 128)/128. What is shown decides the figure: on one pair of sets two libraries said 13.7 and 53.7.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import SIGMAS, Case, Law, draw
from ddpm_ref.conformance.lawbook.quality import images_of, squared_distance

_SIDE = 299
_PAIRS, _SAMPLES = 400, 8
_SHIFT = 128.0


# ------------------------------------------------------------------------------------------------ moments


def _pair(size: int, rank: int, salt: int) -> tuple[Tensor, Tensor, Tensor]:
    """(A of that rank, M positive definite, μ₂ − μ₁)."""
    factor = draw((size, rank), salt) / math.sqrt(rank)
    turn = torch.linalg.qr(draw((size, size), salt + 1))[0]
    stretch = torch.linspace(0.5, 2, size, dtype=torch.float64)
    return factor @ factor.T, (turn * stretch) @ turn.T, draw((size,), salt + 2)


def _moments(size: int, rank: int, salt: int) -> Iterator[Case]:
    """Equation (1), in both orders."""
    first, transport, shift = _pair(size, rank, salt)
    second = transport @ first @ transport
    rest = torch.eye(size, dtype=torch.float64) - transport
    truth = shift @ shift + (rest @ first @ rest).trace()
    mean = draw((size,), salt + 3)
    sides = ((mean, first), (mean + shift, second))
    for (m1, c1), (m2, c2) in (sides, sides[::-1]):
        arguments = {
            "mean1": m1,
            "covariance1": (c1 + c1.T) / 2,
            "mean2": m2,
            "covariance2": (c2 + c2.T) / 2,
        }
        yield _of_moments(arguments, truth, float(shift @ shift + (first + second).trace()))


def _of_moments(arguments: dict[str, Tensor], truth: Tensor, scale: float) -> Case:
    return Case("frechet_of_moments", arguments, truth.reshape(1), scale, select=_as_tensor)


def _as_tensor(value: Any) -> Tensor:
    return torch.tensor([float(value)], dtype=torch.float64)


def _gaussians(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for size in (2, 7, 17):
        yield from _moments(size, 3 * size, 40 + size)


def _singular(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for size, rank in ((2, 1), (7, 3), (17, 5)):
        yield from _moments(size, rank, 50 + size)
    zero = torch.zeros(2, dtype=torch.float64)
    apart = [torch.tensor(v, dtype=torch.float64).diag() for v in ((1.0, 0.0), (0.0, 1.0))]
    for second, truth in ((apart[1], 2.0), (torch.zeros_like(apart[0]), 1.0)):
        arguments = {"mean1": zero, "covariance1": apart[0], "mean2": zero, "covariance2": second}
        yield _of_moments(arguments, torch.tensor(truth, dtype=torch.float64), 2.0)


# ------------------------------------------------------------------------------------------------ features


def _of_features(first: Tensor, second: Tensor, truth: Tensor) -> Case:
    """What sums of squares in float32 lose, 16 roundings of Σ E x², is a matter of precision."""
    squares = max(float(part.double().square().mean(0).sum()) for part in (first, second))
    return Case(
        "frechet_of_features",
        {"first": first, "second": second},
        truth.reshape(1),
        truth,
        select=_as_tensor,
        leeway=16 * torch.finfo(torch.float32).eps * torch.tensor([squares], dtype=torch.float64),
    )


_FACTORIAL = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)


def _few(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Uncorrelated columns by design: column by column (m − m')² + (s − s')², s² over n − 1."""
    for times in (1, 2, 5):
        n = 4 * times
        base, stretch = _FACTORIAL.repeat(times, 1), torch.tensor([3.0, 0.5], dtype=torch.float64)
        truth = 2 * 0.25**2 + (n / (n - 1)) * (stretch - 1).square().sum()
        yield _of_features(base.to(dtype), (base * stretch + 0.25).to(dtype), truth)


def _dyadic(shape: tuple[int, ...], salt: int) -> Tensor:
    """Multiples of 2⁻⁸ below 8 in size, to which 128 is added without rounding in float32."""
    return (draw(shape, salt).clamp(-4, 4) * 256).round() / 256


def _offset(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    first, second = _dyadic((61, 5), 61), _dyadic((53, 5), 62) * 2 + 1
    truth = squared_distance(first, second)
    for shift in (0.0, _SHIFT):
        yield _of_features((first + shift).to(dtype), (second + shift).to(dtype), truth)


def expected_of_one_law(n: int) -> float:
    """Equation (2) for σ = 1."""
    c4 = math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))
    return 2 / n + 2 * (1 - c4**2)


def _bias(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    both = torch.zeros(2, _PAIRS, _SAMPLES, 2, dtype=torch.float64)
    both[..., 0] = draw((2, _PAIRS, _SAMPLES), 63)
    n = _SAMPLES

    def departure(candidate: Implementation) -> Tensor:
        found = [float(candidate.frechet_of_features(a, b)) for a, b in zip(*both, strict=True)]
        values = torch.tensor(found, dtype=torch.float64)
        spread = values.std() / math.sqrt(_PAIRS)
        return ((values.mean() - expected_of_one_law(n)) / spread).reshape(1)

    yield Case(
        "frechet_of_features",
        {"samples": n, "pairs": _PAIRS},
        torch.zeros(1, dtype=torch.float64),
        run=departure,
        label="mean d² of two samples of N(0, 1) minus its expectation, in standard errors",
    )


# ------------------------------------------------------------------------------------------------ batches


def _batches(
    implementation: Implementation, dtype: torch.dtype, *, sizes: tuple[int, int], batch: int
) -> Iterator[Case]:
    real, generated = images_of(sizes[0], 65), images_of(sizes[1], 66, 0.1)

    def ratio(candidate: Implementation) -> Tensor:
        truth = squared_distance(candidate.features(real), candidate.features(generated))
        return _as_tensor(candidate.frechet_in_batches(real, generated, batch)) / truth

    yield Case(
        "frechet_in_batches",
        {"real": sizes[0], "generated": sizes[1], "batch": batch},
        torch.ones(1, dtype=torch.float64),
        run=ratio,
        label="Fréchet distance in batches over its closed form on the same features",
    )


# ------------------------------------------------------------------------------------------------ what the network is shown


def _bytes(shape: tuple[int, ...], salt: int) -> Tensor:
    found: Tensor = (draw(shape, salt) * 60 + 128).clamp(0, 255).round().to(torch.uint8)
    return found


def like_tensorflow(images: Tensor) -> Tensor:
    """Bilinear to 299 × 299 as TensorFlow 1.x does it, float64: output pixel i is read at i·H/299."""
    rows, columns = (_interpolation(size) for size in images.shape[2:])
    found: Tensor = rows @ images.double() @ columns.T
    return found


def _interpolation(size: int) -> Tensor:
    """`[299, size]`: weights of the two neighbours."""
    place = torch.arange(_SIDE, dtype=torch.float64) * size / _SIDE
    low = place.floor().long()
    high = (low + 1).clamp(max=size - 1)
    matrix = torch.zeros(_SIDE, size, dtype=torch.float64)
    step = torch.arange(_SIDE)
    matrix[step, low] += 1 - (place - low)
    matrix[step, high] += place - low
    return matrix


def _shown(method: Any, arguments: dict[str, Any], size: int, label: str) -> Case:
    return Case(
        "network_input",
        arguments,
        torch.zeros(size, dtype=torch.float64),
        run=partial(method, arguments),
        label=f"what the network is shown {label}",
    )


def _range(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    colours = torch.tensor([[0, 128, 255], [64, 64, 64], [255, 200, 1]], dtype=torch.uint8)

    def departure(arguments: dict[str, Any], candidate: Implementation) -> Tensor:
        images = arguments["images"]
        found = candidate.network_input(images, "bytes").double().flatten(2).mean(2)
        gap: Tensor = found - (images[:, :, 0, 0].double() - 128) / 128
        return gap.abs().amax().reshape(1)

    images = colours[:, :, None, None].expand(3, 3, 8, 8).contiguous()
    yield _shown(departure, {"images": images}, 1, "of one colour k, minus (k − 128)/128")


def _forms(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)

    def departure(arguments: dict[str, Any], candidate: Implementation) -> Tensor:
        images = arguments["images"]
        pair = [candidate.network_input(images, form).double() for form in ("bytes", "unit")]
        return (pair[0] - pair[1]).abs().amax().reshape(1)

    yield _shown(departure, {"images": levels}, 1, "of k/255 as a float, minus of k as a byte")


def _grey(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    def departure(arguments: dict[str, Any], candidate: Implementation) -> Tensor:
        images = arguments["images"]
        alone = candidate.network_input(images, "bytes").double()
        colour = candidate.network_input(images.repeat(1, 3, 1, 1), "bytes").double()
        return (alone - colour).abs().amax().reshape(1)

    label = "of a grey image, minus of the same in three channels"
    yield _shown(departure, {"images": _bytes((2, 1, 8, 8), 67)}, 1, label)


def _resized(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Freed of each channel's range by what black and white arrive as."""

    def departure(arguments: dict[str, Any], candidate: Implementation) -> Tensor:
        images = arguments["images"]
        ends = [torch.full_like(images, k) for k in (0, 255)]
        black, white = (
            candidate.network_input(k, "bytes").double().mean((0, 2, 3), keepdim=True) for k in ends
        )
        found = (candidate.network_input(images, "bytes").double() - black) / (white - black)
        return (found - like_tensorflow(images) / 255).abs().amax().reshape(1)

    for k, shape in enumerate(((1, 3, 8, 8), (2, 3, 5, 11))):
        yield _shown(
            departure,
            {"images": _bytes(shape, 68 + k)},
            1,
            "of a small image over its range, minus TensorFlow's bilinear",
        )


_FID = "Heusel et al. 2017 and the network that it was computed with"

LAWS = (
    Law(
        "I23-gaussians",
        "distance of two Gaussians",
        "d² = ‖μ1−μ2‖² + tr(A + B − 2(A^½BA^½)^½), here with B = MAM: ‖μ1−μ2‖² + tr (I−M)A(I−M).",
        "x ↦ Mx is the gradient of a convex function, hence the optimal map from N(0, A) to N(0, MAM).",
        "Brenier 1991; Dowson & Landau 1982.",
        {torch.float64: 1e-9},
        "Of ‖μ1−μ2‖² + tr A + tr B; eigenvalues of the product of two matrices of condition below 1e4.",
        _gaussians,
    ),
    Law(
        "I23-singular",
        "distance where a covariance is singular",
        "The same for covariances of any rank, 0 included: fewer images than features make them singular.",
        "Both sides of the formula are continuous in the covariances.",
        "Seen: 1e-6 added to the diagonal of what is nearly singular.",
        {torch.float64: 1e-6},
        "A root of a zero eigenvalue keeps half the digits: √(2e-16) for each of 17 directions.",
        _singular,
    ),
    Law(
        "I23-few",
        "covariance of few images",
        "(m − m')² + (s − s')² for each of uncorrelated features, with s² over n − 1 degrees of freedom.",
        "Numpy's default, which published figures use; with n the figure of 4 images differs by a quarter.",
        _FID,
        {torch.float64: 1e-6, torch.float32: 1e-3},
        "Sums of a few numbers; the root of a product keeps half the digits.",
        _few,
    ),
    Law(
        "I23-bias",
        "two samples of one distribution",
        "E d² = σ²(2/n + 2(1 − c4²)) for n draws each of N(·, σ²): positive, and falling like 3σ²/n.",
        "Means differ by chance, and so do deviations: E s = c4 σ.",
        "Chong & Forsyth 2020: figures of different n are not comparable.",
        {torch.float64: SIGMAS},
        "Standard errors of the mean of 400 pairs of 8 draws.",
        _bias,
        measures="chance",
    ),
    Law(
        "I23-offset",
        "features far from 0",
        "d² does not change when the same vector is added to every feature, 128 deviations long here.",
        "Means enter by their difference, and covariances do not know of them.",
        "Seen: Σxxᵀ − n m mᵀ summed in float32.",
        {torch.float64: 1e-9, torch.float32: 1e-3},
        "In float32 the inputs are exact; with sums in float64 nothing is lost.",
        _offset,
    ),
    Law(
        "I23-batches",
        "sets in batches",
        "The distance of two sets does not depend on the size of the batches that they come in.",
        "It is a function of sums over images.",
        "Seen: statistics averaged over batches.",
        {torch.float64: 1e-3},
        "As the Fréchet distance.",
        partial(_batches, sizes=(200, 196), batch=4),
    ),
    Law(
        "I23-last",
        "a last batch of one image",
        "A set whose last batch holds one image counts that image like any other.",
        "It is a function of sums over images.",
        "Seen: images beyond a multiple of the batch size left out, a batch of one squeezed to a vector.",
        {torch.float64: 1e-3},
        "As the Fréchet distance; one image of 200 left out moves it by more.",
        partial(_batches, sizes=(201, 197), batch=4),
    ),
    Law(
        "I23-range",
        "range of what the network is shown",
        "A grey level k of 0 … 255 arrives at the first layer as (k − 128)/128, or 2k/255 − 1, which is within 1/127.",
        "The published network begins so; its weights belong to this range.",
        _FID + ". Seen: images of 0 … 1 under weights that were trained on standardized ones.",
        {torch.float64: 1 / 127},
        "The two forms in use differ by 1/128 at white.",
        _range,
        measures="discretization",
    ),
    Law(
        "I23-forms",
        "bytes and floats",
        "k as a byte and k/255 as a float are the same image.",
        "Both say the same grey level.",
        "Seen: floats of 0 … 1 taken for bytes, floats cut instead of rounded.",
        {torch.float64: 1e-5},
        "Float32; a grey level is 8e-3.",
        _forms,
    ),
    Law(
        "I23-grey",
        "grey images",
        "A grey image arrives as the colour image with three equal channels, or is refused.",
        "The network takes three channels.",
        _FID,
        {torch.float64: 1e-5},
        "Float32.",
        _grey,
    ),
    Law(
        "I23-resize",
        "resizing to 299 × 299",
        "Bilinear, with output pixel i read at i·H/299, as the published network's first node does it.",
        "Interpolation is linear, so that it can be freed of the range by what black and white arrive as.",
        "Parmar et al. 2022: the figure depends on the resizing; half-pixel centres and bicubic filters are in use.",
        {torch.float64: 1e-5},
        "Float32 interpolation of 0 … 1.",
        _resized,
        measures="discretization",
    ),
)
