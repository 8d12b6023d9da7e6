"""The definition of the noise: published vectors, disjoint counters, exact transform, distribution, addresses."""

import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ddpm_ref.noise import NoiseStream, Use, counters, philox4x32

ONES = (1 << 32) - 1

# Salmon et al.'s known-answer vectors for philox4x32, 10 rounds (file kat_vectors of Random123): counter, key, output.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def philox_by_hand(counter, key):
    """The ten rounds in Python integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & ONES, (p0 >> 32) ^ c3 ^ k1, p0 & ONES
        k0, k1 = (k0 + 0x9E3779B9) & ONES, (k1 + 0xBB67AE85) & ONES
    return c0, c1, c2, c3


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_published_vectors(counter, key, expected):
    words = philox4x32(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(word.item() for word in words) == expected
    assert philox_by_hand(counter, key) == expected


def place(position, double):
    """Block and number within the block, from the table in the module's docstring."""
    per_block = 2 if double else 4
    group, rest = divmod(position, 16 * per_block)
    return 16 * group + rest % 16, rest // 16


def address_of(seed, index, step, block, use):
    """Counter and key of a block, from the table in the module's docstring."""
    counter = (
        block if use == 0 else use << 28 | block,
        index & ONES,
        index >> 32 | (0 if use == 0 else 1 << 31),
        step,
    )
    return counter, (seed & ONES, seed >> 32)


def exact_normal(words, number, double):
    """The number with fifty digits from the formula of Box and Muller, given the four words of its block."""
    with mpmath.workdps(50):
        if double:
            a, word = words[0] << 32 | words[1], words[2] << 32 | words[3]
            bits, a, b = 53, a >> 11, word >> 11
        else:
            pair = number // 2
            bits, a, b = 32, words[2 * pair], words[2 * pair + 1]
            word = b
        u = mpmath.mpf(max(a, 1)) / 2**bits
        x = mpmath.mpf(b - 2**bits if b >= 2 ** (bits - 1) else b) / 2**bits
        radius = mpmath.sqrt(-2 * mpmath.log(u))
        if number % 2:
            return radius * mpmath.sin(mpmath.pi * x)
        return radius * mpmath.cos(mpmath.pi * x) * (-1 if word & 1 else 1)


@pytest.mark.parametrize(
    # The tolerances are the module's claim: a few units in the last place of the largest factor.
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float64, 1e-15)],
)
@pytest.mark.parametrize("use", [Use.NOISE, Use.SAMPLER])
def test_every_number_is_box_muller_of_its_counter(dtype, tolerance, use):
    seed, step, first = 2**63 - 25, 2**32 - 1, 2**63 - 3
    values = NoiseStream(seed).normal(
        (3, 7, 19), step=step, first_index=first, dtype=dtype, use=use
    )
    double = dtype == torch.float64
    for row, position in itertools.product(range(3), [0, 1, 15, 16, 17, 31, 32, 63, 64, 101, 132]):
        block, number = place(position, double)
        words = philox_by_hand(*address_of(seed, first + row, step, block, int(use)))
        expected = exact_normal(words, number, double)
        value = values[row].flatten()[position].item()
        assert abs(value - expected) <= tolerance * max(1, abs(expected))


@settings(max_examples=200, deadline=None)
@given(
    use=st.sampled_from(list(Use)),
    block=st.integers(0, 2**28 - 1),
    index=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**32 - 1),
)
def test_a_counter_tells_its_address(use, block, index, step):
    """Whatever can be read back from the counter is shared with no other address."""
    words = counters(torch.tensor([block]), index, torch.tensor([0]), step, use)
    c0, c1, c2, c3 = (word.item() for word in words)
    assert all(0 <= word <= ONES for word in (c0, c1, c2, c3))
    noise = c2 >> 31 == 0
    assert (Use.NOISE if noise else Use(c0 >> 28)) == use
    assert (c0 if noise else c0 & (2**28 - 1)) == block
    assert (c2 & (2**31 - 1)) << 32 | c1 == index
    assert c3 == step


def test_counters_of_the_uses_are_disjoint_at_their_ends():
    """Noise has the top bit of c₂ clear; other uses have it set and differ in the top four bits of c₀."""
    ends = {}
    for use in Use:
        last = 2**32 - 1 if use == Use.NOISE else 2**28 - 1
        block = torch.tensor([0, last])
        c0, _, c2, _ = counters(block, 2**63 - 1, torch.tensor([0, 0]), 0, use)
        assert ((c2 >> 31) == (0 if use == Use.NOISE else 1)).all()
        ends[use] = (c0[0].item(), c0[1].item())
    others = sorted(ends[use] for use in Use if use != Use.NOISE)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(others))
    assert max(Use) < 16


EXTREMES = [0, 1, 2, 3, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1, 0x01FFFFFF, 0x00FFFFFF]


@pytest.mark.parametrize("a", EXTREMES)
def test_extreme_words_keep_the_radius(a):
    """Relative precision of the radius at both ends of (0, 1]: 4e-7 is √ of the polynomial's error and three roundings."""
    from ddpm_ref.noise import _SINGLE, _radius

    with mpmath.workdps(50):
        exact = mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(max(a, 1)) / 2**32))
    radius = _radius(torch.tensor([a]), _SINGLE).item()
    assert abs(radius - exact) <= 4e-7 * exact
    assert 2e-5 < radius < 6.67


@pytest.mark.parametrize("bits", [32, 53])
@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_extreme_angles_are_on_the_stated_side(bits, quarters, beside):
    """x = b/2ⁿ as a signed number in [−½, ½): at b = 2ⁿ⁻¹, x = −½ and sin πx = −1."""
    from ddpm_ref.noise import _DOUBLE, _SINGLE, _box_muller

    b, a = (quarters * 2 ** (bits - 2) + beside) % 2**bits, 2 ** (bits - 3) + 1
    word = torch.tensor([b])
    cosine, sine = _box_muller(torch.tensor([a]), word, word, _SINGLE if bits == 32 else _DOUBLE)
    with mpmath.workdps(50):
        x = mpmath.mpf(b if b < 2 ** (bits - 1) else b - 2**bits) / 2**bits
        radius = mpmath.sqrt(-2 * mpmath.log(mpmath.mpf(a) / 2**bits))
        sign = -1 if b % 2 else 1
        exact = sign * radius * mpmath.cos(mpmath.pi * x), radius * mpmath.sin(mpmath.pi * x)
    tolerance = (1e-6 if bits == 32 else 1e-15) * radius
    assert abs(cosine.item() - exact[0]) <= tolerance
    assert abs(sine.item() - exact[1]) <= tolerance


def test_tails_reach_six_and_a_half_sigma():
    from ddpm_ref.noise import _SINGLE, _radius

    assert _radius(torch.tensor([1]), _SINGLE).item() > 6.6


def test_single_square_roots_are_correctly_rounded():
    """Against math.sqrt of the exact double, rounded: no single root lies near enough to a middle for that to err."""
    from ddpm_ref.noise import _square_root

    w = torch.cat([torch.logspace(-9, 2, 4999), 1 + torch.arange(997) * 2.0**-23])
    expected = torch.tensor([math.sqrt(value) for value in w.tolist()]).to(torch.float32)
    assert torch.equal(_square_root(w), expected)


def test_double_square_roots_are_within_one_unit():
    from ddpm_ref.noise import _square_root

    w = torch.logspace(-15, 2, 4999, dtype=torch.float64)
    expected = torch.tensor([math.sqrt(value) for value in w.tolist()], dtype=torch.float64)
    assert ((_square_root(w) - expected).abs() <= 2.3e-16 * expected).all()


# Significance of every test of the distribution: the seed is fixed, so a passing build keeps passing.
LEVEL = 1e-4


def test_moments_and_kolmogorov_smirnov():
    """Powers 1 … 8 of 2^21 numbers within four standard errors of a normal's, and the KS distance."""
    values = NoiseStream(3).normal((512, 4096), step=1).double().flatten()
    n = values.numel()
    for order in range(1, 9):
        mean = math.prod(range(order - 1, 0, -2)) if order % 2 == 0 else 0
        square = math.prod(range(2 * order - 1, 0, -2))
        error = (values**order).mean().item() - mean
        assert abs(error) <= 4 * math.sqrt((square - mean**2) / n), f"moment {order}"
    assert stats.kstest(values.numpy(), "norm").pvalue > LEVEL


def test_double_numbers_are_normal():
    values = NoiseStream(3).normal((128, 4099), step=1, dtype=torch.float64).flatten()
    assert stats.kstest(values.numpy(), "norm").pvalue > LEVEL


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 8}, {"seed": 7 + 2**32}, {"step": 2}, {"first_index": 1},
        {"first_index": 2**32}, {"use": Use.SAMPLER}, {"use": Use.TIMESTEP},
    ],
    ids=str,
)  # fmt: skip
def test_neighbouring_streams_are_uncorrelated(other):
    """Neighbours differ in one bit of key or counter; so do powers of their numbers (a broken cipher shows there)."""
    base = {"seed": 7, "step": 1, "first_index": 0, "use": Use.NOISE}

    def draw(seed, step, first_index, use):
        shape = (1, 2**19)
        stream = NoiseStream(seed)
        return stream.normal(shape, step=step, first_index=first_index, use=use).double()

    one, two = draw(**base).flatten(), draw(**(base | other)).flatten()
    for power in (1, 2):
        pair = torch.stack([one**power, two**power])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 4.5 / math.sqrt(one.numel())


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 15, 16, 17, 32, 48, 64, 128, 4096])
def test_elements_are_uncorrelated(lag):
    """Lag 16 is the partner in Box and Muller's pair, 64 the next group: squares of partners share a radius."""
    values = NoiseStream(11).normal((1, 2**20), step=0).double().flatten()
    for power in (1, 2):
        pair = torch.stack([values[:-lag] ** power, values[lag:] ** power])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 4.5 / math.sqrt(values.numel())


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(13, 3, 5, 7), (11, 64), (7, 1), (5, 11, 97), (3,)])
def test_batches_split_anywhere(shape, dtype):
    stream = NoiseStream(2**62 + 5)
    whole = stream.normal(shape, step=4, first_index=2**32 - 2, dtype=dtype)
    for parts in ([1] * shape[0], [2, shape[0] - 2]):
        starts = itertools.accumulate(parts, initial=2**32 - 2)
        pieces = [
            stream.normal((rows, *shape[1:]), step=4, first_index=start, dtype=dtype)
            for rows, start in zip(parts, starts, strict=False)
        ]
        assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_longer_sample_begins_with_a_shorter_one(dtype):
    stream = NoiseStream(1)
    long = stream.normal((2, 401), step=0, dtype=dtype)
    for size in (1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 256, 400):
        assert torch.equal(stream.normal((2, size), step=0, dtype=dtype), long[:, :size])


def test_half_precision_is_single_rounded():
    stream = NoiseStream(5)
    single = stream.normal((7, 333), step=2)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(stream.normal((7, 333), step=2, dtype=dtype), single.to(dtype))


def test_uses_do_not_share_numbers():
    stream = NoiseStream(0)
    drawn = torch.stack([stream.normal((64,), step=0, use=use) for use in Use])
    assert drawn.unique().numel() == drawn.numel()


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 23), (torch.float64, 52)])
def test_uniform_numbers(dtype, bits):
    values = NoiseStream(9).uniform((3, 100_003), use=Use.TIMESTEP, step=1, dtype=dtype).double()
    assert values.min() > 0
    assert values.max() < 1
    assert torch.equal((values * 2**bits).frac(), torch.full_like(values, 0.5))  # exact, symmetric
    assert stats.kstest(values.flatten().numpy(), "uniform").pvalue > LEVEL


def test_integers_are_uniform_and_bounded():
    values = NoiseStream(9).integers((100_003,), low=-2, high=11, use=Use.TIMESTEP, step=1)
    assert values.dtype == torch.int64
    counts = torch.bincount(values + 2, minlength=13)
    assert counts.numel() == 13
    assert stats.chisquare(counts.numpy()).pvalue > LEVEL
    wide = NoiseStream(9).integers((5, 3), low=0, high=2**31, use=Use.ORDER, step=0)
    assert wide.min() >= 0
    assert wide.max() < 2**31


@pytest.mark.parametrize("width", [0, -1, 2**31 + 1, 2**32])
def test_integers_of_no_width_or_of_too_much_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match="low < high <= low"):
        NoiseStream(9).integers((5, 3), low=7, high=7 + width, use=Use.ORDER, step=0)


@pytest.mark.parametrize("width", [1000, 2**31 - 1])  # the wide one carries from the low words
def test_integers_follow_their_definition(width):
    seed, step = 77, 5
    values = NoiseStream(seed).integers((2, 40), low=3, high=3 + width, use=Use.PILOT, step=step)
    for row, position in itertools.product(range(2), range(40)):
        block, half = place(position, double=True)
        words = philox_by_hand(*address_of(seed, row, step, block, int(Use.PILOT)))
        number = words[2 * half] << 32 | words[2 * half + 1]
        assert values[row, position].item() == 3 + (number * width >> 64)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 5)])
def test_empty_shapes(shape):
    assert NoiseStream(0).normal(shape, step=0).shape == shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NoiseStream(-1), "seed = -1"),
        (lambda: NoiseStream(2**63), "seed = 9223372036854775808"),
        (lambda: NoiseStream(0).normal((1,), step=2**32), "step = 4294967296"),
        (lambda: NoiseStream(0).normal((1,), step=-1), "step = -1"),
        (lambda: NoiseStream(0).normal((1,), step=0, first_index=-1), "first_index = -1"),
        (lambda: NoiseStream(0).normal((1,), step=0, first_index=2**63), "first_index"),
        (lambda: NoiseStream(0).normal((2,), step=0, first_index=2**63 - 1), "batch"),
        (lambda: NoiseStream(0).normal((), step=0), "no samples"),
        (lambda: NoiseStream(0).normal((2, -1), step=0), "negative size"),
        (lambda: NoiseStream(0).integers((1,), low=3, high=3, use=Use.ORDER, step=0), "low = 3"),
        (lambda: NoiseStream(0).normal((0, 2**34 + 1), step=0), "blocks"),
        (lambda: NoiseStream(0).normal((0, 2**30 + 1), step=0, use=Use.ORDER), "ORDER"),
    ],
)  # fmt: skip
def test_addresses_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="int64"):
        NoiseStream(0).normal((1,), step=0, dtype=torch.int64)
    with pytest.raises(TypeError, match="float16"):
        NoiseStream(0).uniform((1,), step=0, use=Use.ORDER, dtype=torch.float16)
    with pytest.raises(TypeError, match="float"):
        NoiseStream(1.5)


def test_the_ends_of_every_range_work():
    stream = NoiseStream(2**63 - 1)
    values = stream.normal((1, 5), step=2**32 - 1, first_index=2**63 - 1)
    assert torch.isfinite(values).all()
