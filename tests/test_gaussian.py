"""KL and decoder against 50-digit arithmetic: values, gradients, tails, tiny differences."""

import math

import mpmath as mp
import pytest
import torch

from ddpm_ref.gaussian import (
    Gaussian,
    discretized_gaussian_log_likelihood,
    expm1_minus,
    gaussian_kl,
)

mp.mp.dps = 50


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact_kl(m1: float, l1: float, m2: float, l2: float) -> mp.mpf:
    m1, l1, m2, l2 = map(mp.mpf, (m1, l1, m2, l2))
    return (l2 - l1 + mp.exp(l1 - l2) - 1 + (m1 - m2) ** 2 * mp.exp(-l2)) / 2


@pytest.mark.parametrize(
    "case",
    [
        (0.3, -1.0, -0.7, 0.5),
        (0.3, 1.0, 0.3, 1.0 + 1e-9),
        (0.3, 1e-7, 0.3 + 1e-8, 0.0),
        (1.5, -20.0, 1.5, 3.0),
        (0.0, 0.49, 0.0, 0.0),
        (0.0, -0.51, 0.0, 0.0),
        (0.0, 30.0, 0.0, 0.0),
    ],
)
def test_kl_agrees_with_fifty_digits(case: tuple[float, ...]) -> None:
    got = gaussian_kl(*(f64(v) for v in case)).item()
    assert got == pytest.approx(float(exact_kl(*case)), rel=1e-12, abs=0)


def test_kl_is_zero_only_for_equal_gaussians_even_in_float32() -> None:
    mean, log_var = torch.tensor([0.1, -2.0]), torch.tensor([-9.0, 4.0])
    assert gaussian_kl(mean, log_var, mean, log_var).tolist() == [0, 0]
    nearby = gaussian_kl(mean, log_var, mean, log_var + 1e-3)
    assert (nearby > 0).all()


def test_kl_of_point_masses() -> None:
    point = f64(-math.inf)
    assert gaussian_kl(f64(1.0), point, f64(1.0), point) == 0
    assert gaussian_kl(f64(1.0), point, f64(2.0), point) == math.inf
    assert gaussian_kl(f64(1.0), point, f64(1.0), f64(0.0)) == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [0.0, 1.0])
@pytest.mark.parametrize("log_var", [0.0, -2.0, 3.0])
def test_kl_from_a_gaussian_to_a_point_mass_is_infinite(mean, log_var, dtype) -> None:
    """The limit log_var2 → −∞ of eq. (1), which e^{d} outgrows everything else in."""
    zero, point = torch.zeros(1, dtype=dtype), torch.full((1,), -math.inf, dtype=dtype)
    wide = torch.full((1,), log_var, dtype=dtype)
    assert gaussian_kl(zero, wide, zero + mean, point).item() == math.inf
    assert gaussian_kl(zero, point, zero + mean, point).item() == (0 if mean == 0 else math.inf)


def test_a_point_mass_spoils_no_gradient_beside_it() -> None:
    log_var = f64(-math.inf, 0.4).requires_grad_()
    gaussian_kl(f64(0.0, 0.0), f64(0.0, 0.0), f64(0.0, 0.0), log_var).sum().backward()
    assert log_var.grad[1].item() == pytest.approx((1 - math.exp(-0.4)) / 2, rel=1e-14)
    edge = f64(math.log(torch.finfo(torch.float64).max), -0.7, 0.7, 0.1).requires_grad_()
    expm1_minus(edge).sum().backward()
    exact = [float(mp.expm1(mp.mpf(x))) for x in edge.tolist()]
    assert edge.grad.tolist() == pytest.approx(exact, rel=1e-12)


def test_kl_gradient() -> None:
    inputs = [f64(0.3, 0.1).requires_grad_() for _ in range(4)]
    with torch.no_grad():
        inputs[1].add_(0.2)
        inputs[2].sub_(1.0)
    assert torch.autograd.gradcheck(gaussian_kl, inputs)


def test_log_prob_is_the_normal_density() -> None:
    got = Gaussian(f64(0.4), f64(-1.2)).log_prob(f64(2.0)).item()
    exact = mp.log(mp.npdf(2, mp.mpf(0.4), mp.exp(mp.mpf(-0.6))))
    assert got == pytest.approx(float(exact), rel=1e-13)


def exact_mass(k: int, mean: mp.mpf, sigma: mp.mpf, levels: int) -> mp.mpf:
    """Log-probability of level k, by tail areas that do not cancel."""
    low = mp.mpf(2 * k - 1) / (levels - 1) - 1
    high = mp.mpf(2 * k + 1) / (levels - 1) - 1
    a = -mp.inf if k == 0 else (low - mean) / sigma
    b = mp.inf if k == levels - 1 else (high - mean) / sigma
    if a + b > 0 or b == mp.inf:
        a, b = -b, -a
    lost = (
        0 if a == -mp.inf else int(a**2 / 4)
    )  # digits that the difference of two tail areas cancels
    with mp.workdps(60 + lost):
        return mp.log(mp.ncdf(b) - mp.ncdf(a))


DECODER_CASES = [
    (k, mean, log_scale, levels)
    for levels in (2, 17, 256)
    for k in (0, 1, levels // 2, levels - 1)
    for mean in (-1.0, 0.037, 0.96)
    for log_scale in (-5.0, -2.0, 0.0, 4.0, 11.0)
]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_decoder_value_and_gradient(levels: int) -> None:
    cases = [c for c in DECODER_CASES if c[3] == levels]
    cases = [c for c in cases if abs(2 * c[0] / (levels - 1) - 1 - c[1]) / math.exp(c[2]) < 40]
    x = f64(*(2 * k / (levels - 1) - 1 for k, *_ in cases))
    mean = f64(*(c[1] for c in cases)).requires_grad_()
    log_scale = f64(*(c[2] for c in cases)).requires_grad_()
    value = discretized_gaussian_log_likelihood(x, mean, log_scale, levels)
    by_mean, by_scale = torch.autograd.grad(value.sum(), [mean, log_scale])
    for i, (k, m, s, _) in enumerate(cases):

        def at(m: mp.mpf, s: mp.mpf, k: int = k) -> mp.mpf:
            return exact_mass(k, m, mp.exp(s), levels)

        exact = at(mp.mpf(m), mp.mpf(s))
        assert abs(value[i].item() - exact) <= 1e-9 * max(1, abs(exact)), cases[i]
        h = mp.mpf(10) ** -12
        slope_mean = (at(m + h, mp.mpf(s)) - at(m - h, mp.mpf(s))) / (2 * h)
        slope_scale = (at(mp.mpf(m), s + h) - at(mp.mpf(m), s - h)) / (2 * h)
        assert abs(by_mean[i].item() - slope_mean) <= 1e-3 * abs(slope_mean) + 1e-12, cases[i]
        assert abs(by_scale[i].item() - slope_scale) <= 1e-3 * abs(slope_scale) + 1e-12, cases[i]


@pytest.mark.parametrize("sigmas", [12, 38, 200])
def test_decoder_far_in_the_tail(sigmas: int) -> None:
    """At z deviations, ln P = ln φ(z)(1 − e^{−zw}…)/z…: finite, and its slope by the mean is nearly z/σ."""
    levels, sigma = 256, 0.01
    mean = f64(sigmas * sigma).requires_grad_()
    x = f64(-1 / 255)  # the level just below the middle
    value = discretized_gaussian_log_likelihood(x, mean, f64(math.log(sigma)), levels)
    value.backward()
    if sigmas <= 38:
        exact = exact_mass(127, mp.mpf(sigmas * sigma), mp.mpf(sigma), levels)
        assert abs(value.item() - exact) <= 1e-9 * abs(exact)
    assert math.isfinite(value.item())
    edge = (sigmas * sigma) / sigma  # distance of the bin's near edge, 0, in deviations
    assert -mean.grad.item() * sigma == pytest.approx(edge, rel=2 / edge)


@pytest.mark.parametrize("z", [900.0, 30_000.0])
def test_decoder_of_a_narrow_bin_far_away(z: float) -> None:
    """Bins of 5e-4 σ are narrow, but across one of them ln φ falls by up to 15 at z = 30,000: it is no straight line.

    ln[Φ(b) − Φ(a)] = ln Φ(b) + ln(1 − e^{−g}) with Φ(−z) = φ(z)/z · (1 − 1/z² + …), worked out here by hand.
    """
    levels = 17
    width, half = 5e-4, 1 / 16
    sigma = 2 * half / width
    value = discretized_gaussian_log_likelihood(
        f64(0.0), f64(z * sigma), f64(math.log(sigma)), levels
    ).item()

    def log_tail(x: mp.mpf) -> mp.mpf:
        return -(x**2) / 2 - mp.log(x * mp.sqrt(2 * mp.pi)) + mp.log1p(-1 / x**2 + 3 / x**4)

    near, far = (log_tail(mp.mpf(z) + sign * mp.mpf(width) / 2) for sign in (-1, 1))
    exact = near + mp.log1p(-mp.exp(far - near))
    assert abs(value - exact) <= 1e-9 * abs(exact)


@pytest.mark.parametrize("log_scale", [3.0, 8.0, 15.0, 25.0, 35.0])
@pytest.mark.parametrize("level", [1, 127, 254])
def test_decoder_of_a_bin_far_narrower_than_the_scale(level: int, log_scale: float) -> None:
    """A difference of two Φ keeps no digit of a bin of 1e-17 σ; density times width keeps all."""
    mean, scale = f64(0.3).requires_grad_(), f64(log_scale).requires_grad_()
    value = discretized_gaussian_log_likelihood(f64(2 * level / 255 - 1), mean, scale, 256)
    by_mean, by_scale = torch.autograd.grad(value.sum(), [mean, scale])
    sigma = mp.exp(mp.mpf(log_scale))
    z = (mp.mpf(2 * level) / 255 - 1 - mp.mpf(0.3)) / sigma
    assert value.item() == pytest.approx(
        float(exact_mass(level, mp.mpf(0.3), sigma, 256)), rel=1e-14, abs=0
    )
    # z/σ and z² − 1 up to (w/σ)²/12 of a term that is 1
    assert by_mean.item() == pytest.approx(float(z / sigma), rel=1e-6, abs=0)
    assert by_scale.item() == pytest.approx(float(z**2 - 1), rel=1e-6, abs=0)


@pytest.mark.parametrize("sigmas", [1, 3, 8, 10, 20, 30])
@pytest.mark.parametrize("shift", [0.0, 0.01, 0.7, 3.0])
def test_decoder_of_a_bin_that_holds_nearly_everything(sigmas: int, shift: float) -> None:
    """The middle of three levels, ±½, is ±8σ or more: ln(1 − two tails) and its slopes, from the tails themselves."""
    mean = f64(shift * 0.5 / sigmas).requires_grad_()
    log_scale = f64(math.log(0.5 / sigmas)).requires_grad_()
    value = discretized_gaussian_log_likelihood(f64(0.0), mean, log_scale, 3)
    by_mean, by_scale = torch.autograd.grad(value.sum(), [mean, log_scale])
    m, sigma = mp.mpf(mean.item()), mp.exp(mp.mpf(log_scale.item()))
    a, b = (-0.5 - m) / sigma, (0.5 - m) / sigma
    outside = mp.ncdf(a) + mp.ncdf(-b)
    slope_mean = (mp.npdf(a) - mp.npdf(b)) / sigma / (1 - outside)
    slope_scale = (a * mp.npdf(a) - b * mp.npdf(b)) / (1 - outside)
    assert value.item() == pytest.approx(float(mp.log1p(-outside)), rel=1e-12, abs=0)
    # 1e-3 is promised; a mean on the edge itself costs the slope by the scale seven digits
    assert by_mean.item() == pytest.approx(float(slope_mean), rel=1e-7, abs=0)
    assert by_scale.item() == pytest.approx(float(slope_scale), rel=1e-7, abs=0)


@pytest.mark.parametrize("log_scale", [-699.0, -701.0, -1000.0, -1e300, -math.inf])
def test_decoder_of_a_vanishing_scale_is_a_point_mass(log_scale: float) -> None:
    """All mass lies in the bin of the mean: ln 1 = 0 there, flat, and −∞ in the others. Half of it on either side of an edge."""
    x = f64(0.0, 0.0, 1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 1.0)
    mean = f64(0.0, 0.1, 0.9, -3.0, 0.7, 0.2, 1.0, 0.5, 0.5).requires_grad_()
    scale = torch.full_like(x, log_scale).requires_grad_()
    value = discretized_gaussian_log_likelihood(x, mean, scale, 3)
    value.sum().backward()
    assert value[:7].tolist() == [0, 0, 0, 0] + [-math.inf] * 3
    assert value[7:].tolist() == pytest.approx([math.log(0.5)] * 2, rel=1e-15)
    assert mean.grad[:4].tolist() == scale.grad[:4].tolist() == [0, 0, 0, 0]
    assert not torch.isnan(mean.grad).any()
    assert (mean.grad[4:7].sign() == f64(-1.0, 1.0, -1.0)).all()  # towards the bin


def test_decoder_masses_sum_to_one_and_mirror() -> None:
    levels = 17
    grid = torch.arange(levels, dtype=torch.float64) / 8 - 1
    for mean, log_scale in [(0.1, -3.0), (-0.9, 0.5), (3.0, -1.0)]:
        mass = discretized_gaussian_log_likelihood(grid, f64(mean), f64(log_scale), levels)
        assert mass.exp().sum().item() == pytest.approx(1, abs=1e-13)
        mirrored = discretized_gaussian_log_likelihood(-grid, f64(-mean), f64(log_scale), levels)
        torch.testing.assert_close(mirrored, mass, rtol=1e-12, atol=0)


def test_decoder_snaps_float32_images_and_refuses_others() -> None:
    k = torch.arange(256)
    image = k.float() / 127.5 - 1
    zero = torch.zeros(())
    exact = discretized_gaussian_log_likelihood(
        k.double() / 127.5 - 1, zero.double(), zero.double(), 256
    )
    got = discretized_gaussian_log_likelihood(image, zero, zero, 256)
    torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=0)
    for value in (0.5, 1.01, -1.2, math.nan):
        with pytest.raises(ValueError, match="not on the lattice"):
            discretized_gaussian_log_likelihood(f64(value), f64(0.0), f64(0.0), 256)
    with pytest.raises(TypeError, match="127.5"):
        discretized_gaussian_log_likelihood(k, zero, zero, 256)
    with pytest.raises(ValueError, match="levels"):
        discretized_gaussian_log_likelihood(image, zero, zero, 1)
    for no_count in (256.0, "256", True, None):
        with pytest.raises(TypeError, match="number of grey levels as an int"):
            discretized_gaussian_log_likelihood(image, zero, zero, no_count)


@pytest.mark.parametrize("log_scale", [-4.6, -9.0, -14.0])
@pytest.mark.parametrize("z", [1e6, 1e8, 1e12])
def test_decoder_gradient_has_no_horizon(z: float, log_scale: float) -> None:
    """So far out, ln P = −e²/2 − ln e − … with e the distance of the near edge in deviations: slope e + 1/e."""
    sigma = math.exp(log_scale)
    mean = f64(z * sigma).requires_grad_()
    scale = f64(log_scale).requires_grad_()
    value = discretized_gaussian_log_likelihood(f64(1 / 255), mean, scale, 256)
    by_mean, by_scale = torch.autograd.grad(value.sum(), [mean, scale])
    edge = (z * sigma - 2 / 255) / sigma
    assert value.item() == pytest.approx(-(edge**2) / 2, rel=1e-9)
    assert -by_mean.item() * sigma == pytest.approx(edge, rel=1e-6)
    assert by_scale.item() == pytest.approx(edge**2, rel=1e-6)


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    three, two = torch.zeros(3), torch.zeros(2)
    with pytest.raises(ValueError, match="do not broadcast"):
        gaussian_kl(two, two, three, two)
    with pytest.raises(ValueError, match="do not broadcast"):
        discretized_gaussian_log_likelihood(torch.ones(2), three, two, 17)
    with pytest.raises(ValueError, match="on meta"):
        gaussian_kl(two, two, torch.zeros(2, device="meta"), two)
