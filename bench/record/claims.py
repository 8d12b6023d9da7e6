"""The claims, a row each: who says what, and which contrast of which study decides it (`bench.record.claim`).

The primary measure stands in the row before anything is run.
"""

from bench.record.claim import Cell, Claim, Term, equal, less, over
from bench.terminal.usage import unknown

_LEARNED = "(learned skip)"
_SIZES, _WIDTHS = (16, 64, 256, 512), (8, 32, 128, 256)
_NARROW = tuple(f"capacity-{d}-{w}" for d in _SIZES for w in _WIDTHS if w < d)
_WIDE = tuple(f"capacity-{d}-{w}" for d in _SIZES for w in _WIDTHS if w >= d)
_BELOW_DATA = tuple(f"capacity-{d}-{w}" for d in _SIZES for w in _WIDTHS if 4 * w < d)
_LAW = "closed form, `ddpm_ref.oracle.rank`"
_JIT = "Li & He 2025 (JiT)"
_TOY_X0, _TOY_EPS, _TOY_V = "x0/simple_v", "eps/simple_v", "v/simple_v"

_LINEAR_ARMS = ("x0/simple_x0", "eps/simple", "v/simple_v")
_CAPACITY = (
    Claim(
        "law-linear",
        "A linear network of rank h misses the exact denoiser by the price of the directions that its output leaves to its skip",
        _LAW,
        "equality",
        tuple(
            Cell("linear", (Term(1.0, arm, "departure"),), level)
            for arm in _LINEAR_ARMS
            for level in range(6)
        ),
        margin=0.02,
        predicted="departure 0 of the price at rank 0",
    ),
    Claim(
        "law-linear-order",
        "On linear networks x₀ misses the exact denoiser by less than v, and v by less than ε",
        _LAW,
        "difference",
        (
            *less("linear", "excess_v", "x0/simple_x0", "v/simple_v"),
            *less("linear", "excess_v", "v/simple_v", "eps/simple"),
        ),
    ),
    Claim(
        "law-linear-skip",
        "With a learned skip, training finds the same linear network whether it outputs ε or x₀",
        _LAW,
        "equality",
        equal("linear", "excess_v", f"x0/simple_x0 {_LEARNED}", f"eps/simple {_LEARNED}"),
        margin=1.05,
    ),
    Claim(
        "narrow-eps",
        "Where a ReLU network is narrower than the data, outputting ε misses the exact denoiser by more than outputting x₀",
        f"{_LAW}; {_JIT}",
        "difference",
        over(_NARROW, "excess_v", _TOY_X0, _TOY_EPS),
    ),
    Claim(
        "narrow-v",
        "Where a ReLU network is narrower than the data, outputting v misses the exact denoiser by more than outputting x₀",
        f"{_LAW}; {_JIT}",
        "difference",
        over(_NARROW, "excess_v", _TOY_X0, _TOY_V),
    ),
    Claim(
        "wide-equal",
        "Where a ReLU network is as wide as the data, ε and x₀ miss the exact denoiser alike",
        f"{_LAW} (no gap from capacity)",
        "equality",
        over(_WIDE, "excess_v", _TOY_X0, _TOY_EPS),
        margin=1.25,
        predicted="no gap from capacity",
    ),
    Claim(
        "skip-equal",
        "On ReLU networks a learned skip removes the gap between ε and x₀",
        _LAW,
        "equality",
        over((*_NARROW, *_WIDE), "excess_v", f"{_TOY_X0} {_LEARNED}", f"{_TOY_EPS} {_LEARNED}"),
        margin=1.25,
    ),
    Claim(
        "skip-helps-eps",
        "On ReLU networks narrower than the data a learned skip makes ε miss the exact denoiser by less",
        _LAW,
        "difference",
        over(_NARROW, "excess_v", f"{_TOY_EPS} {_LEARNED}", _TOY_EPS),
    ),
    Claim(
        "edm-off-manifold",
        "Below the data's intrinsic dimension EDM's skip misses the exact denoiser by more than the best skip, a learned one",
        f"{_LAW}; Karras et al. 2022",
        "difference",
        over(_BELOW_DATA, "excess_v", f"{_TOY_X0} {_LEARNED}", f"{_TOY_X0} (EDM)"),
    ),
)

_TOYS = (
    Claim(
        "jit-512",
        "At D = 512 and width 256 only the x₀-output stays on the data's plane",
        _JIT,
        "difference",
        less("jit-512", "off_plane", _TOY_X0, _TOY_EPS, _TOY_V),
        predicted="ε and v pay for 254 dropped directions",
    ),
    Claim(
        "jit-16",
        "ε and v leave the data's plane from D = 16 on, x₀ does not",
        _JIT,
        "difference",
        less("jit-16", "off_plane", _TOY_X0, _TOY_EPS, _TOY_V),
        predicted="nothing: 16 < 256",
    ),
    Claim(
        "jit-2",
        "At D = 2 the three outputs give equally good samples",
        _JIT,
        "equality",
        equal("jit-2", "energy_distance", _TOY_X0, _TOY_EPS, _TOY_V),
        margin=0.01,
        predicted="no gap from capacity",
    ),
    Claim(
        "jit-order",
        "At D = 512 ε leaves the plane farther than v",
        f"{_JIT}; {_LAW}",
        "difference",
        less("jit-512", "off_plane", _TOY_V, _TOY_EPS),
        predicted="price of ε above that of v",
    ),
    Claim(
        "no-time-512",
        "In many dimensions (D = 512) a network without a time input denoises as well",
        "Sun et al. 2025",
        "equality",
        equal("jit-512", "eps_mse", _TOY_X0, f"{_TOY_X0} (blind)"),
        margin=1.25,
    ),
    Claim(
        "no-time-2",
        "In two dimensions a network without a time input denoises worse",
        "Sun et al. 2025",
        "difference",
        less("jit-2", "x0_mse", _TOY_X0, f"{_TOY_X0} (blind)"),
    ),
)

_ARTICLE_SOURCE = "the article"
_ARTICLE = (
    Claim(
        "easier",
        "Predicting the noise reaches a better likelihood than predicting the image, at equal weighting",
        _ARTICLE_SOURCE,
        "difference",
        (
            *less("digits", "bits_per_dim", "eps/simple", "x0/simple"),
            *less("digits", "bits_per_dim", "eps/simple_x0", "x0/simple_x0"),
        ),
    ),
    Claim(
        "faster",
        "Predicting the noise passes the best linear denoiser in fewer steps",
        _ARTICLE_SOURCE,
        "difference",
        (
            *less("digits", "steps_to_linear", "eps/simple", "x0/simple"),
            *less("digits", "steps_to_linear_x0", "eps/simple_x0", "x0/simple_x0"),
        ),
    ),
    Claim(
        "stabler",
        "Predicting the noise trains with a steadier gradient",
        _ARTICLE_SOURCE,
        "difference",
        (
            *less("digits", "gradient_spread", "eps/simple", "x0/simple"),
            *less("digits", "gradient_spread", "eps/simple_x0", "x0/simple_x0"),
        ),
    ),
    Claim(
        "two-convolutions",
        "Two convolutions without a time input denoise as well as a U-Net",
        _ARTICLE_SOURCE,
        "equality",
        equal("digits", "eps_mse", "eps/simple", "eps/simple (article)"),
        margin=1.1,
    ),
    Claim(
        "no-time-input",
        "A U-Net needs no time input",
        _ARTICLE_SOURCE,
        "equality",
        equal("digits", "eps_mse", "eps/simple", "eps/simple (blind)"),
        margin=1.05,
    ),
)

_STUDY, _DISTANCE = "objectives", "fd"
_OBJECTIVES = (
    Claim(
        "equal-weighting",
        "At equal weighting ε, x₀ and v give equally good samples",
        "Salimans & Ho 2022",
        "equality",
        equal(_STUDY, _DISTANCE, "eps/simple_v", "x0/simple_v", "v/simple_v"),
        margin=1.1,
    ),
    Claim(
        "min-snr",
        "Min-SNR weighting rescues x₀-prediction: better samples than with a constant weight",
        "Hang et al. 2023",
        "difference",
        less(_STUDY, _DISTANCE, "x0/min_snr", "x0/simple_x0"),
    ),
    Claim(
        "simple-against-bound",
        "L_simple gives better samples, the bound a better likelihood",
        "Ho et al. 2020",
        "difference",
        (
            *less(_STUDY, _DISTANCE, "eps/simple", "eps/elbo"),
            *less(_STUDY, "bits_per_dim", "eps/elbo", "eps/simple"),
        ),
    ),
    Claim(
        "draw-or-weigh",
        "Drawing t where it matters beats weighting it there: better samples at equal effective weight",
        "Hang et al. 2024",
        "difference",
        less(_STUDY, _DISTANCE, "x0/simple (Laplace drawn)", "x0/simple (Laplace as weight)"),
        predicted="equal expected gradients",
    ),
    Claim(
        "swap",
        "x₀ and ε change places with the schedule: ε is better on cosine, x₀ on Laplace",
        "Hang et al. 2024",
        "difference",
        (
            *less(_STUDY, _DISTANCE, "eps/simple (cosine)", "x0/simple (cosine)"),
            *less(_STUDY, _DISTANCE, "x0/simple (Laplace drawn)", "eps/simple (Laplace drawn)"),
        ),
    ),
    Claim(
        "monotone",
        "A monotone weighting (v-MSE on cosine) gives samples as good as one that is not (ε-MSE on cosine)",
        "Kingma & Gao 2023, their table",
        "equality",
        equal(_STUDY, _DISTANCE, "v/simple (cosine)", "v/simple_v (cosine)"),
        margin=1.1,
    ),
    Claim(
        "edm-preconditioning",
        "EDM's preconditioning alone leaves the samples as good as they were",
        "Karras et al. 2022",
        "equality",
        equal(_STUDY, _DISTANCE, "x0/simple", "x0/simple (EDM)"),
        margin=1.1,
    ),
    Claim(
        "edm-loss",
        "EDM's loss, t log-normal with its weight, improves the preconditioned network's samples",
        "Karras et al. 2022",
        "difference",
        less(_STUDY, _DISTANCE, "x0/simple_v (EDM, log-normal)", "x0/simple (EDM)"),
    ),
    Claim(
        "noisy-bound",
        "Importance-sampled t makes the gradients of the bound steadier",
        "Nichol & Dhariwal 2021",
        "difference",
        less(_STUDY, "gradient_spread", "eps/elbo (loss-aware t)", "eps/elbo"),
    ),
    Claim(
        "even-bound",
        "Low-discrepancy t makes the gradients of the bound steadier",
        "Kingma et al. 2021",
        "difference",
        less(_STUDY, "gradient_spread", "eps/elbo (even t)", "eps/elbo"),
    ),
    Claim(
        "learned-variance",
        "Learning the reverse variance by the hybrid loss lowers the bound",
        "Nichol & Dhariwal 2021",
        "difference",
        less("learned-variance", "bits_per_dim", "eps/simple (learned variance)", "eps/simple"),
    ),
)

_EXACT = (
    Claim(
        "identity-variance",
        "With the reverse variance Σ = I the bound is as good as with β_t I",
        "the article",
        "exact",
        needs="a record of `ddpm-bench bound`",
        command="ddpm-bench bound",
        prices=("identity", "beta"),
    ),
)

_ONLY_EPS, _ONLY_X0 = "eps/simple", "x0/simple_x0"
_PATCHES = (
    Claim(
        "photos",
        "On patches of 768 and 3,072 numbers, at width 256, x₀ denoises better than ε and v",
        _JIT,
        "difference",
        over(("photos-16", "photos-32"), "eps_mse", _TOY_X0, _TOY_EPS, _TOY_V),
    ),
    Claim(
        "photos-small",
        "On patches of 48 numbers, at width 256, ε and x₀ denoise alike",
        _JIT,
        "equality",
        equal("photos-4", "eps_mse", _TOY_X0, _TOY_EPS),
        margin=1.1,
        predicted="no gap from capacity",
    ),
    Claim(
        "jit-scaled",
        "Noise scaled to the data's mean variance rescues v at D = 512: its energy off the plane is within a factor of 10 of x₀'s",
        "public re-implementations of the toy of Li & He 2025",
        "equality",
        equal("jit-512-scaled", "off_plane", _TOY_X0, _TOY_V),
        margin=10.0,
    ),
    *(
        Claim(
            f"sampler-steps-{steps}",
            f"With {steps} sampler steps only-ε gives better samples than only-x₀",
            "Benny & Wolf 2022, CIFAR-10",
            "difference",
            less("sampler-steps", "fd" if steps == 50 else f"fd_at_{steps}", _ONLY_EPS, _ONLY_X0),
        )
        for steps in (5, 25, 100)
    ),
)

_GPU = "a GPU"
_ELSEWHERE = (
    Claim(
        "jit-imagenet",
        "On 768-dimensional patches at width 768 only x₀-prediction gives usable ImageNet samples",
        _JIT,
        needs=_GPU,
        command="ddpm-bench run --preset full --data folder:IMAGENET256",
    ),
    Claim(
        "k-diff",
        "The best output is k·x₀ − (1−k)·ε with k = D/(D + d)",
        "Jin & Wang 2026 (k-Diff)",
        needs=_GPU,
        command="ddpm-bench run --preset full",
    ),
    Claim(
        "gap-and-distance",
        "The gap above the optimal loss at middle noise levels falls as the FID rises",
        "Xu et al. 2025",
        needs=_GPU,
        command="ddpm-bench run --preset full --only study",
    ),
)

_ROWS = (*_CAPACITY, *_TOYS, *_ARTICLE, *_OBJECTIVES, *_EXACT, *_PATCHES, *_ELSEWHERE)
CLAIMS = {row.id: row for row in _ROWS}
"""Claim by id, in the order in which they are listed."""


def claim(name: str) -> Claim:
    """The claim of that id.

    Raises:
        UsageError: there is none; the nearest are named.
    """
    if name not in CLAIMS:
        raise unknown("claim", name, CLAIMS)
    return CLAIMS[name]
