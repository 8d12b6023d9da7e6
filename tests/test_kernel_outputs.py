"""`fused_q_sample(…, out=…)` writes the same bits into what is given; `q_sample` by the kernel has the bits of the definition."""

import pytest
import torch

from ddpm_ref import process
from ddpm_ref.kernels import fused_q_sample, native, q_sample, q_sample_providers
from ddpm_ref.kernels.providers import PROVIDERS, coefficients
from ddpm_ref.noise import NoiseStream
from ddpm_ref.schedule import linear_schedule

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SCHEDULE = linear_schedule(1000)
STREAM = NoiseStream(77)
# Prime and odd sizes, a group more or less, a sample of one number, rows of more than a thread's chunk.
SHAPES = [(5, 3, 11, 13), (2, 64), (3, 65), (7, 1), (7, 7), (5,), (3, 40_009), (2, 31)]


def batch(shape, dtype):
    generator = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return x0, torch.randint(1, 1001, shape[:1], generator=generator), noise


def like(x0):
    return torch.full_like(x0, torch.nan), torch.full_like(x0, torch.nan)


@pytest.mark.parametrize("provider", [*PROVIDERS, "auto"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_out_holds_the_bits_that_would_be_returned(provider, dtype):
    reason = None if provider == "auto" else q_sample_providers()[provider]
    if reason is not None:
        pytest.skip(f"{provider}: {reason}")
    if provider == "compiled" and dtype != torch.float32:
        pytest.skip(
            "one dtype shows where the result is put; tests/test_kernels.py compiles them all"
        )
    device = "cuda" if provider == "cuda" else "cpu"
    for shape in SHAPES if provider != "compiled" else SHAPES[:1]:
        x0, t, _ = (x.to(device) for x in batch(shape, dtype))
        expected = fused_q_sample(x0, t, SCHEDULE, STREAM, step=4, first_index=9)
        out = like(x0)
        found = fused_q_sample(
            x0, t, SCHEDULE, STREAM, step=4, first_index=9, provider=provider, out=out
        )
        assert found[0] is out[0]
        assert found[1] is out[1]
        assert torch.equal(out[0], expected[0])
        assert torch.equal(out[1], expected[1])


def test_parts_of_one_buffer_and_a_strided_x0():
    x0, t, _ = batch((5, 3, 11, 13), torch.float32)
    expected = fused_q_sample(x0, t, SCHEDULE, STREAM, step=1)
    room = torch.empty(2, 7, 3, 11, 13)
    strided = x0.transpose(1, 3).contiguous().transpose(1, 3)
    fused_q_sample(strided, t, SCHEDULE, STREAM, step=1, out=(room[0, :5], room[1, 1:6]))
    assert torch.equal(room[0, :5], expected[0])
    assert torch.equal(room[1, 1:6], expected[1])


def test_compiled_code_writes_into_out():
    x0, t, _ = batch((5, 3, 7), torch.float32)
    expected = fused_q_sample(x0, t, SCHEDULE, STREAM, step=2)

    def noisy(x0, t, x_t, eps):
        fused_q_sample(x0, t, SCHEDULE, STREAM, step=2, out=(x_t, eps))
        return x_t + 1

    out = like(x0)
    result = torch.compile(noisy, fullgraph=True, backend="aot_eager")(x0, t, *out)
    assert torch.equal(result, expected[0] + 1)
    assert torch.equal(out[0], expected[0])
    assert torch.equal(out[1], expected[1])


X0 = torch.zeros(3, 5)
ROOM = torch.zeros(40)


@pytest.mark.parametrize(
    ("x0", "out", "error", "message"),
    [
        (X0, (torch.zeros(3, 4), torch.zeros(3, 5)), ValueError, r"x_t has shape \[3, 4\]"),
        (X0, (torch.zeros(3, 5), torch.zeros(3, 1)), ValueError, r"eps has shape \[3, 1\]"),
        (X0, (torch.zeros(3, 5), torch.zeros(3, 5).double()), TypeError, "eps has dtype torch.float64"),
        (X0, (torch.zeros(3, 5, device="meta"), torch.zeros(3, 5)), ValueError, "on meta"),
        (X0, (torch.zeros(5, 3).T, torch.zeros(3, 5)), ValueError, "x_t is not contiguous"),
        (X0, (torch.zeros(3, 5), torch.zeros(1, 5).expand(3, 5)), ValueError, "eps is not contiguous"),
        (X0, (ROOM[:15].view(3, 5), ROOM[14:29].view(3, 5)), ValueError, "eps and x_t share memory"),
        (ROOM[:15].view(3, 5), (ROOM[10:25].view(3, 5), X0), ValueError, "x0 and x_t share memory"),
        (ROOM[:30].view(3, 10)[:, ::2], (ROOM[25:40].view(3, 5), X0), ValueError, "share memory"),
        (X0, torch.zeros(2, 3, 5), TypeError, r"pair of tensors"),
        (X0.clone().requires_grad_(), (X0, torch.zeros(3, 5)), ValueError, "no gradient"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_wrong_out_names_value_rule_and_remedy(x0, out, error, message):
    t = torch.tensor([1, 2, 3])
    with pytest.raises(error, match=message):
        fused_q_sample(x0, t, SCHEDULE, STREAM, step=0, out=out)


def test_neighbours_in_one_buffer_do_not_overlap():
    out = ROOM[:15].view(3, 5), ROOM[15:30].view(3, 5)
    fused_q_sample(X0, torch.tensor([1, 2, 3]), SCHEDULE, STREAM, step=0, out=out)


has_native = pytest.mark.skipif(
    native.unavailable() is not None, reason=f"native provider: {native.unavailable()}"
)


@has_native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_kernel_with_noise_given_is_the_definition(dtype):
    before = torch.get_num_threads()
    for shape in SHAPES:
        x0, t, noise = batch(shape, dtype)
        expected = process.q_sample(x0, t, SCHEDULE, noise)
        scales = coefficients(t, SCHEDULE, dtype)
        for variant in range(len(native.variants())):
            assert torch.equal(native.form(x0, *scales, noise, variant=variant), expected)
        for count in (1, 2):
            torch.set_num_threads(count)
            assert torch.equal(q_sample(x0, t, SCHEDULE, noise), expected)
    torch.set_num_threads(before)


@has_native
@pytest.mark.filterwarnings("ignore:.torch.jit.script")  # from torch.func.jvp's first use
def test_q_sample_takes_the_kernel_only_where_nothing_is_lost(monkeypatch):
    calls = []
    form = native.form
    monkeypatch.setattr(native, "form", lambda *a, **k: calls.append(1) or form(*a, **k))
    x0, t, noise = batch((5, 3, 7), torch.float32)
    assert torch.equal(q_sample(x0, t, SCHEDULE, noise), process.q_sample(x0, t, SCHEDULE, noise))
    assert len(calls) == 1
    # A derivative in either input, another dtype, a transform: the definition.
    leaf = x0.clone().requires_grad_()
    q_sample(leaf, t, SCHEDULE, noise).sum().backward()
    signal = SCHEDULE.sqrt_alpha_bar[t].float().view(-1, 1, 1)
    assert torch.equal(leaf.grad, signal.expand_as(x0))
    assert q_sample(x0, t, SCHEDULE, noise.double()).dtype == torch.float32
    _, slope = torch.func.jvp(lambda x: q_sample(x, t, SCHEDULE, noise), (x0,), (x0,))
    assert torch.equal(slope, signal * x0)
    torch.func.vmap(lambda x: q_sample(x, t, SCHEDULE, noise))(torch.stack([x0, x0]))
    assert len(calls) == 1
    with torch.no_grad():
        q_sample(leaf, t, SCHEDULE, noise)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"noise": torch.zeros(3, 4)}, ValueError, "noise has shape"),
        ({"t": torch.tensor([1, 2, 1001])}, ValueError, "t = 1001"),
        ({"x0": torch.zeros(3, 5, dtype=torch.uint8)}, TypeError, "uint8"),
        ({"schedule": SCHEDULE.beta}, TypeError, "schedule is a Tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_q_sample_refuses_what_the_definition_refuses(change, error, message):
    arguments = {
        "x0": X0,
        "t": torch.tensor([1, 2, 3]),
        "schedule": SCHEDULE,
        "noise": X0.clone(),
    } | change
    for function in (q_sample, process.q_sample):
        with pytest.raises(error, match=message):
            function(**arguments)
