r"""Laws on what a bottleneck costs: the best linear network of rank h, by brute force.

For x_0 ~ N(0, C) and y = p x_0 + q ε the regression of y on x_t = a x_0 + s ε is R = Cov(y, x_t) V⁻¹, V = a²C + s²I. Among matrices of rank h
the expected squared error of y is least for the one whose product with V^½ is R V^½ cut down to its h largest singular values, and an error
in y is an error 1/κ times as large in x_0 (`truth`, 5). So the excess over the best denoiser is

    Σ_{k > h} ς_k²/κ²,        ς_k the singular values of Cov(y, x_t) V^−½ = (p a C + q s I) V^−½.                  (1)

Nothing here knows that the matrices commute, or that an output is a skip.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation
from ddpm_ref.conformance.lawbook.law import Case, Law, draw, settings_with_truth
from ddpm_ref.conformance.lawbook.truth import Row, Truth
from ddpm_ref.conformance.setting import Setting

_OUTPUTS = ("eps", "x0", "v")
_SPECTRA = ((3.0,), (0.0, 0.04, 1.0, 7.0), (0.3, 0.3, 0.001, 2.0, 0.02, 1.0, 0.7))


def _singular_values(spectrum: Tensor, row: Row, output: str) -> Tensor:
    """ς/κ of (1), largest first, in a basis that is not the eigenvectors'."""
    size, (p, q) = len(spectrum), row.prediction(output)
    basis = torch.linalg.qr(draw((size, size), 17)).Q
    data, identity = basis @ spectrum.diag() @ basis.T, torch.eye(size, dtype=torch.float64)
    spread, vectors = torch.linalg.eigh(float(row.alpha_bar) * data + float(row.rest) * identity)
    shared = float(p * row.a) * data + float(q * row.s) * identity
    whitened = shared @ vectors @ spread.rsqrt().diag() @ vectors.T
    values: Tensor = torch.linalg.svdvals(whitened) / abs(float(row.error_factor(output)))
    return values


def _cases(
    setting: Setting, known: Truth, output: str, spectrum: Tensor, steps: list[int]
) -> Iterator[Case]:
    squares = torch.stack(
        [_singular_values(spectrum, known.rows[t], output).square() for t in steps]
    )
    for rank in sorted({0, 1, len(spectrum) // 2, len(spectrum)}):
        yield Case(
            "rank_limited_excess",
            {
                "setting": setting,
                "eigenvalues": spectrum,
                "rank": rank,
                "t": torch.tensor(steps),
                "parameterization": output,
            },
            squares[:, rank:].sum(1),
            squares.sum(1),
        )


def _price(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        steps = sorted({1, (known.T + 1) // 2, known.T})
        for output in _OUTPUTS:
            defined = [t for t in steps if output != "eps" or known.rows[t].alpha_bar > 0]
            for spectrum in _SPECTRA:
                given = torch.tensor(spectrum, dtype=torch.float64)
                yield from _cases(setting, known, output, given, defined)


LAWS = (
    Law(
        "I31-rank",
        "price of a bottleneck",
        "The best linear network of rank h, trained by the squared error of its own output, errs by the D − h smallest of "
        "(Cov(y, x_t)²/Var x_t)/κ² more than E[x0 | x_t], one for each eigendirection of the data.",
        "Reduced-rank regression: of the regression of y on x_t, weighted by the spread of x_t, the h largest singular values are kept.",
        "Izenman 1975; Eckart and Young 1936.",
        {torch.float64: 1e-10},
        "Relative to rank 0; a singular value decomposition errs by 1e-15 of the largest singular value.",
        _price,
    ),
)
