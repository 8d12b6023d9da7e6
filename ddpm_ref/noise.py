r"""Random numbers by counting: the bit-exact definition of all randomness in this project.

A stream is a function, not a state: (seed, use, step, sample index, position) → number. Batch split, thread count, device,
provider, world size and torch version do not enter, so a run is replayed on any machine. Everything below is integer
arithmetic and float + − × ÷ √ in a fixed order, each operation rounded on its own (no fused multiply-add), no library
log, sin or cos: IEEE 754 leaves such a sequence one result. This module is slow and plain; `ddpm_ref.kernels` is fast
and must give the same bits.

**Bits.** Philox4x32-10 (Salmon et al. 2011, section 3.3) maps a 128-bit counter and a 64-bit key to four 32-bit words.
(M₀, M₁) = (D2511F53, CD9E8D57)₁₆; each of ten rounds, with key words raised by (9E3779B9, BB67AE85)₁₆ between rounds, is

    (c₀, c₁, c₂, c₃) ← (hi(M₁c₂) ⊕ c₁ ⊕ k₀,  lo(M₁c₂),  hi(M₀c₀) ⊕ c₃ ⊕ k₁,  lo(M₀c₀)).                          (1)

| word | noise                                     | any other use                             |
|------|-------------------------------------------|-------------------------------------------|
| k₀   | seed, low 32 bits                         | the same                                  |
| k₁   | seed, high 31 bits (top bit 0: reserved)  | the same                                  |
| c₀   | block, 32 bits                            | top 4 bits: the use (1 … 15); block, 28   |
| c₁   | sample index, low 32 bits                 | the same                                  |
| c₂   | top bit 0; sample index, high 31 bits     | top bit 1; sample index, high 31 bits     |
| c₃   | step, 32 bits                             | the same                                  |

So no two uses, steps, samples or positions share a counter. (float32 and float64 numbers of one use are two readings of
the same words.)

**Layout.** A position p is the row-major offset within a sample, so a longer sample begins with a shorter one. A block
gives four 32-bit numbers or two 64-bit ones. Sixteen neighbouring blocks are laid out word by word, so that a register
of lanes that computes neighbouring blocks stores neighbouring numbers:

    32-bit:  block = 16⌊p/64⌋ + p mod 16,  word = ⌊p/16⌋ mod 4;                                                       (2)
    64-bit:  block = 16⌊p/32⌋ + p mod 16,  half = ⌊p/16⌋ mod 2  (half 0 = words 0, 1; half 1 = words 2, 3; first = high).

**Normal numbers** (Box & Muller 1958). Two words a, b give two numbers: words 0, 1 → numbers 0, 1 and words 2, 3 →
numbers 2, 3 (64-bit: halves 0, 1 → numbers 0, 1). With n = 32 bits (64-bit: the upper n = 53 bits of each half),

    u = max(a, 1)/2ⁿ = 2⁻ᵏ(1 − τ),  k = leading zeros of a,  τ ∈ [0, ½];    (a = 0: k = n, τ = 0)                      (3)
    r² = −2 ln u = k · 2 ln 2 + 4 artanh(q),  q = τ/(2 − τ);                                                           (4)
    x = b/2ⁿ as a signed number, −½ ≤ x < ½;  σ = −1 where the last bit of the word b is set, else 1;                  (5)
    z₀ = r · σ · cos πx,  z₁ = r · sin πx.                                                                             (6)

τ comes from an exact subtraction of integers and is rounded once, so r keeps its relative precision where u → 1 as well
as where u → 0, out to r = √(2n ln 2): 6.66 for 32 bits. Angle and sign together run over the whole circle.
artanh(q)/q, sin(πx)/x and cos(πx)/(¼ − x²) are polynomials in q² and x² (`_SINGLE`, `_DOUBLE`), minimax for the relative
error of r² and the absolute errors of sine and cosine: below 1.8e-7 (which √ halves), 8e-9 and 6e-8 in float32, below
5e-17, 2e-17 and 5e-18 in float64. The factor ¼ − x² keeps the cosine's zeros exact.
√ is correctly rounded in float32. A float64 root is a float32 root s and one step of third order,

    √w ≈ s + (δ − δ²/2s),  δ = (w − s²)/2s  (s² is exact, the rest of the series is below 1e-21).                      (7)

With rounding, |z − exact| ≤ 1e-6 max(1, |z|) in float32 and 1e-15 max(1, |z|) in float64. bf16 and fp16 are the float32
numbers rounded to nearest even.

**Uniform numbers** lie strictly inside (0, 1) and are exact: (i + ½)/2²³ from the upper 23 bits of a word in float32,
(i + ½)/2⁵² from the upper 52 bits of a half in float64. **Integers** are low + ⌊h · (high − low)/2⁶⁴⌋ for a half h.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from ddpm_ref.validation import check_device, check_name, check_shape, check_whole, shown

Words = tuple[Tensor, Tensor, Tensor, Tensor]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LANES = 16  # neighbouring blocks laid out side by side, eq. (2)
_CHUNK = 1 << 15  # blocks at a time: the intermediate tensors stay in cache, whatever the shape


class Use(IntEnum):
    """What a number is drawn for; each use has counters of its own (the top bits of c₀ and c₂)."""

    NOISE = 0
    TIMESTEP = 1
    WEIGHTS = 2
    SAMPLER = 3
    ORDER = 4
    PILOT = 5


@dataclass(frozen=True)
class _Transform:
    """Constants of eqs. (4)–(6) for one precision; polynomials in q² and x², lowest power first."""

    bits: int
    dtype: torch.dtype
    two_log_two: float
    artanh: tuple[float, ...]
    sine: tuple[float, ...]
    cosine: tuple[float, ...]


def _hex(*digits: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, digits))


_SINGLE = _Transform(
    bits=32,
    dtype=torch.float32,
    two_log_two=float.fromhex("0x1.62e430p+0"),
    artanh=_hex("0x1.fffffap+1", "0x1.55625ep+0", "0x1.95362ap-1", "0x1.5fc9c2p-1"),
    sine=_hex(
        "0x1.921fb4p+1", "-0x1.4abba2p+2", "0x1.466504p+1", "-0x1.31fbf4p-1", "0x1.3912a8p-4"
    ),
    cosine=_hex("0x1.fffffep+1", "-0x1.de9cf0p+1", "0x1.46dcc8p+0", "-0x1.c08004p-3"),
)
_DOUBLE = _Transform(
    bits=53,
    dtype=torch.float64,
    two_log_two=2 * math.log(2),
    artanh=_hex(
        "0x1.0000000000000p+2", "0x1.5555555555937p+0", "0x1.99999998ebcdbp-1",
        "0x1.24924978306ebp-1", "0x1.c71c4a6af6f4ap-2", "0x1.7462503ce082ep-2",
        "0x1.3aa9235717700p-2", "0x1.163f9a9490fe4p-2", "0x1.959cab6003b38p-3",
        "0x1.6b517b3e7e853p-2",
    ),
    sine=_hex(
        "0x1.921fb54442d18p+1", "-0x1.4abbce625be38p+2", "0x1.466bc67759f0ap+1",
        "-0x1.32d2cce5e02d0p-1", "0x1.50783467a2fc9p-4", "-0x1.e307400506f50p-8",
        "0x1.e8efa9a932d65p-12", "-0x1.6ef2a0c95cd22p-16", "0x1.8d568603e73f5p-21",
    ),
    cosine=_hex(
        "0x1.0000000000000p+2", "-0x1.de9e64df22ee2p+1", "0x1.472be1224244ap+0",
        "-0x1.d4fcd82fc4d09p-3", "0x1.9f05ca34eeef8p-6", "-0x1.f30966a27dc53p-10",
        "0x1.b23b88c9cf6f7p-14", "-0x1.16740b425a1f4p-18",
    ),
)  # fmt: skip


def philox4x32(counter: Words, key: tuple[int, int], rounds: int = 10) -> Words:
    """Four 32-bit words from a counter and a key: eq. (1), Salmon et al. 2011.

    Args:
        counter: (c₀, c₁, c₂, c₃), int64 tensors with values in 0 … 2³²−1, of shapes that broadcast together.
        key: (k₀, k₁), each in 0 … 2³²−1.
        rounds: 10 in every published test vector.

    Returns:
        Four int64 tensors with values in 0 … 2³²−1.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        # int64 products wrap: the 64 bits are right, so are both halves once masked.
        low, high = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((high >> 32) ^ c1 ^ k0) & _MASK, high & _MASK
        c2, c3 = ((low >> 32) ^ c3 ^ k1) & _MASK, low & _MASK
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class NoiseStream:
    """All random numbers of one seed, addressed by (use, step, sample index, position).

    Every method takes `shape` = `[B, *dims]`: row i is the sample with the global index `first_index + i`, and a batch may
    be split or extended freely. Samples 0 … 2⁶³−1, steps 0 … 2³²−1; 2³⁴ float32 numbers a sample for the noise, 2³⁰ for
    other uses (half of that for float64 and integers).

    Args:
        seed: 0 … 2⁶³−1.

    Raises:
        ValueError: an argument outside its range.
    """

    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _checked("seed", self.seed, 63))

    @property
    def key(self) -> tuple[int, int]:
        """The Philox key (k₀, k₁)."""
        return self.seed & _MASK, self.seed >> 32

    def normal(
        self,
        shape: Sequence[int],
        *,
        step: int,
        first_index: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        use: Use = Use.NOISE,
    ) -> Tensor:
        """Standard normal numbers `[B, *dims]`, eqs. (3)–(6).

        Args:
            shape: `[B, *dims]`.
            step: the training step, or any other count that asks for fresh numbers.
            first_index: global index of row 0.
            device: where the result lives; the bits do not depend on it.
            dtype: float64 reads 53-bit uniforms; float32 32-bit ones; bf16 and fp16 are float32 rounded.
            use: the counter range.
        """
        if dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            raise TypeError(
                f"dtype {dtype} has no normal numbers; choose float32, float64, bfloat16 or float16"
            )
        constants = _DOUBLE if dtype == torch.float64 else _SINGLE
        out = _empty(shape, dtype, device)
        self._fill(out, lambda words: _normal(words, constants), use, step, first_index)
        return out

    def uniform(
        self,
        shape: Sequence[int],
        *,
        use: Use,
        step: int,
        first_index: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Uniform numbers strictly inside (0, 1), `[B, *dims]`, float32 (23 bits) or float64 (52 bits)."""
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype {dtype} has no uniform numbers; choose float32 or float64")
        out = _empty(shape, dtype, device)
        transform = _uniform_double if dtype == torch.float64 else _uniform_single
        self._fill(out, transform, use, step, first_index)
        return out

    def integers(
        self,
        shape: Sequence[int],
        *,
        low: int,
        high: int,
        use: Use,
        step: int,
        first_index: int = 0,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Integers in low … high − 1, int64 `[B, *dims]`; each value's probability is right within 2⁻⁶⁴."""
        low, high = check_whole("low", low), check_whole("high", high)
        width = high - low
        if not 1 <= width <= 1 << 31:
            raise ValueError(
                f"low = {shown(low)}, high = {shown(high)}: the rule is low < high <= low + 2**31; high itself is never drawn"
            )
        out = _empty(shape, torch.int64, device)
        self._fill(out, lambda words: _integers(words, width), use, step, first_index)
        return out.add_(low)

    def _fill(
        self,
        out: Tensor,
        transform: Callable[[Words], Sequence[Tensor]],
        use: Use,
        step: int,
        first_index: int,
    ) -> None:
        """Write the numbers of every sample into `out`, a bounded number of blocks at a time."""
        per_block = 4 if out.dtype.itemsize <= 4 else 2
        batch, size = check_address(out.shape, per_block, use, step, first_index)
        if out.numel() == 0:
            return
        lanes = min(_LANES, size)  # a sample of fewer numbers needs only its first blocks
        groups = -(-size // (_LANES * per_block))
        padded = out.new_empty(batch * groups, per_block, lanes)
        for start in range(0, batch * groups, _CHUNK // _LANES):
            chunk = padded[start : start + _CHUNK // _LANES]
            group = torch.arange(start, start + len(chunk), device=out.device).unsqueeze(1)
            row, group = group // groups, group % groups
            block = group * _LANES + torch.arange(lanes, device=out.device)
            counter = counters(block, first_index, row, step, use)
            for number, values in enumerate(transform(philox4x32(counter, self.key))):
                chunk[:, number] = values
        out.view(batch, size).copy_(padded.view(batch, -1)[:, :size])


def _empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    return torch.empty(check_shape(shape), dtype=dtype, device=check_device(device))


def counters(block: Tensor, first_index: int, row: Tensor, step: int, use: Use) -> Words:
    """The counter words (c₀, c₁, c₂, c₃) of the table above.

    Args:
        block: int64, the number of the block within its sample.
        first_index: global index of row 0.
        row: int64, rows of the batch.
        step: 0 … 2³²−1.
        use: the counter range.
    """
    index = first_index + row
    use_block, use_index = (use << 28, 1 << 31) if use else (0, 0)
    return block | use_block, index & _MASK, (index >> 32) | use_index, torch.full_like(row, step)


def check_address(
    shape: Sequence[int], per_block: int, use: Use, step: int, first_index: int
) -> tuple[int, int]:
    """Check that every counter is within its range; returns (samples, numbers per sample).

    Args:
        shape: `[B, *dims]`.
        per_block: numbers per block: 4 (float32 and below) or 2 (64-bit).
        use: the counter range.
        step: 0 … 2³²−1.
        first_index: 0 … 2⁶³−1, as is the index of the last sample.
    """
    if len(shape) == 0:
        raise ValueError("shape [] has no samples: the first dimension is the batch; pass (1, ...)")
    check_name("use", getattr(use, "name", use), Use.__members__)
    _checked("step", step, 32)
    _checked("first_index", first_index, 63)
    batch, size = shape[0], math.prod(shape[1:])
    _checked("first_index + batch - 1", first_index + max(batch, 1) - 1, 63)
    blocks = -(-size // (_LANES * per_block)) * _LANES
    limit = 1 << (28 if use else 32)
    if blocks > limit:
        raise ValueError(
            f"a sample of {size} numbers needs {blocks} blocks, but {Use(use).name} has {limit} a sample: "
            "split the sample into several indices"
        )
    return batch, size


def _checked(name: str, value: int, bits: int) -> int:
    value = check_whole(name, value)
    if not 0 <= value < 1 << bits:
        raise ValueError(
            f"{name} = {shown(value)} lies outside 0 … 2**{bits} - 1: counters are not wrapped, because two addresses "
            f"would share their bits; reduce it modulo 2**{bits} if that is what you mean"
        )
    return value


def _normal(words: Words, constants: _Transform) -> Sequence[Tensor]:
    """The numbers of a block in order, eq. (6)."""
    if constants.bits == 32:
        a, b, c, d = words
        return (*_box_muller(a, b, b, constants), *_box_muller(c, d, d, constants))
    radius, angle = _halves(words)
    return _box_muller((radius >> 11) & ((1 << 53) - 1), angle >> 11, angle, constants)


def _box_muller(a: Tensor, b: Tensor, sign: Tensor, constants: _Transform) -> tuple[Tensor, Tensor]:
    """Two normal numbers from two n-bit integers; n and the polynomials are `constants`'."""
    radius = _radius(a, constants)
    bits = constants.bits
    signed = torch.where(b >= 1 << (bits - 1), b - (1 << bits), b)
    x = signed.to(constants.dtype) * 2.0**-bits
    y = x * x
    sine = _polynomial(constants.sine, y) * x
    cosine = _polynomial(constants.cosine, y) * (0.25 - y)
    cosine = torch.where((sign & 1) == 1, -cosine, cosine)
    return radius * cosine, radius * sine


def _radius(a: Tensor, constants: _Transform) -> Tensor:
    """r of eqs. (3) and (4)."""
    # a < 2⁵³ is exact in float64, and so are its mantissa in [½, 1) and 1 − mantissa = τ.
    mantissa, exponent = torch.frexp(a.to(torch.float64))
    mantissa = torch.where(a == 0, 1.0, mantissa)
    k = (constants.bits - exponent).to(constants.dtype)
    tau = (1 - mantissa).to(constants.dtype)
    q = tau / (2 - tau)
    series = _polynomial(constants.artanh, q * q) * q
    return _square_root(k * constants.two_log_two + series)


def _square_root(w: Tensor) -> Tensor:
    """√w with the same bits everywhere: torch's own may be a vector library's that is off by a unit in the last place."""
    # No float32 has a root within 2⁻⁵¹ (relative) of the middle between two float32: rounding a float64 root is exact.
    single = torch.sqrt(w.to(torch.float32).to(torch.float64)).to(torch.float32)
    if w.dtype == torch.float32:
        return single
    root = single.to(torch.float64)
    step = (w - root * root) / (2 * root)
    return root + (step - step * step / (2 * root))  # eq. (7)


def _polynomial(coefficients: Sequence[float], y: Tensor) -> Tensor:
    """Horner's rule from the highest power down: one multiplication and one addition a step, each rounded."""
    value = y * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * y + coefficient
    return value


def _halves(words: Words) -> tuple[Tensor, Tensor]:
    """The two 64-bit halves of a block, as int64 bit patterns."""
    return (words[0] << 32) | words[1], (words[2] << 32) | words[3]


def _uniform_single(words: Words) -> Sequence[Tensor]:
    return [((word >> 9).to(torch.float32) + 0.5) * 2.0**-23 for word in words]


def _uniform_double(words: Words) -> Sequence[Tensor]:
    mask = (1 << 52) - 1
    return [(((half >> 12) & mask).to(torch.float64) + 0.5) * 2.0**-52 for half in _halves(words)]


def _integers(words: Words, width: int) -> Sequence[Tensor]:
    pairs = ((words[0], words[1]), (words[2], words[3]))
    return [(high * width + ((low * width) >> 32)) >> 32 for high, low in pairs]
