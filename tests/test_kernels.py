"""Every provider gives the bits of the definition; libraries are built safely, or the reason is stated."""

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm_ref.kernels import build, cuda, fast_normal, fused_q_sample, native, q_sample_providers
from ddpm_ref.kernels.operator import fused, normal
from ddpm_ref.kernels.providers import PROVIDERS, coefficients
from ddpm_ref.noise import _SINGLE, NoiseStream, Use, _normal, counters, philox4x32
from ddpm_ref.process import q_sample
from ddpm_ref.schedule import compute_dtype, linear_schedule

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Prime and odd sizes, one group more or less, B = D, a sample of one number, rows that no vector register is aligned to.
SHAPES = [
    (5, 3, 11, 13),
    (2, 64),
    (3, 63),
    (3, 65),
    (2, 191),
    (7, 1),
    (7, 7),
    (5,),
    (3, 4097),
    (2, 3, 97),
]
SCHEDULE = linear_schedule(1000)
STREAM = NoiseStream(2**61 + 12345)

has_native = pytest.mark.skipif(
    native.unavailable() is not None, reason=f"native provider: {native.unavailable()}"
)
NVCC = shutil.which("nvcc")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def batch(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return x0, torch.randint(1, SCHEDULE.T + 1, shape[:1], generator=generator)


def definition(x0, t, *, step, first_index):
    eps = STREAM.normal(tuple(x0.shape), step=step, first_index=first_index, dtype=x0.dtype)
    return q_sample(x0, t, SCHEDULE, eps), eps


@has_native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("use", [Use.NOISE, Use.SAMPLER])
def test_native_noise_is_the_definition(dtype, use):
    for shape, variant in itertools.product(SHAPES, range(len(native.variants()))):
        address = {"step": 2**32 - 3, "first_index": 2**32 - 2, "dtype": dtype, "use": use}
        expected = STREAM.normal(shape, **address)
        assert torch.equal(native.normal(STREAM, shape, variant=variant, **address), expected), (
            shape,
            native.variants()[variant],
        )


@has_native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_native_q_sample_is_the_definition(dtype, count, threads):
    threads(count)
    for shape, variant in itertools.product(SHAPES, range(len(native.variants()))):
        x0, t = batch(shape, dtype)
        expected = definition(x0, t, step=9, first_index=41)
        found = native.q_sample(
            x0, *coefficients(t, SCHEDULE, dtype), STREAM, step=9, first_index=41, variant=variant
        )
        assert torch.equal(found[0], expected[0]), (shape, native.variants()[variant])
        assert torch.equal(found[1], expected[1]), (shape, native.variants()[variant])


@has_native
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_chunks_and_two_threads_change_nothing(dtype, threads):
    """More numbers than one thread takes at a time, with rows that end inside such a chunk."""
    x0, t = batch((5, 37, 1009), dtype)
    expected = definition(x0, t, step=1, first_index=0)
    for count in (1, 2, 3):
        threads(count)
        found = fused_q_sample(x0, t, SCHEDULE, STREAM, step=1, provider="native")
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("provider", [*PROVIDERS, "auto"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_provider_is_the_definition(provider, dtype):
    reason = None if provider == "auto" else q_sample_providers()[provider]
    if reason is not None:
        pytest.skip(f"{provider}: {reason}")
    device = "cuda" if provider == "cuda" else "cpu"
    for shape in [(5, 3, 11, 13), (7, 7), (2, 191)]:
        x0, t = batch(shape, dtype)
        expected = definition(x0, t, step=3, first_index=2**40)
        found = fused_q_sample(
            x0.to(device),
            t.to(device),
            SCHEDULE,
            STREAM,
            step=3,
            first_index=2**40,
            provider=provider,
        )
        assert torch.equal(found[0].cpu(), expected[0])
        assert torch.equal(found[1].cpu(), expected[1])


def test_one_batch_of_256_is_256_batches_of_one():
    x0, t = batch((256, 3, 5, 7), torch.float32)
    whole = fused_q_sample(x0, t, SCHEDULE, STREAM, step=2)
    for i in range(256):
        one = fused_q_sample(x0[i : i + 1], t[i : i + 1], SCHEDULE, STREAM, step=2, first_index=i)
        assert torch.equal(one[0][0], whole[0][i])
        assert torch.equal(one[1][0], whole[1][i])


@pytest.mark.parametrize(
    "rearranged",
    [
        lambda x: x.transpose(1, 3), lambda x: x[:, :, ::2], lambda x: x[1:, 1:],
        lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: x[:, :1].expand_as(x),
    ],
)  # fmt: skip
def test_position_is_the_row_major_offset_whatever_the_strides(rearranged):
    x0 = rearranged(batch((5, 3, 11, 13), torch.float32)[0])
    t = torch.arange(1, x0.shape[0] + 1)
    before = x0.clone()
    found = fused_q_sample(x0, t, SCHEDULE, STREAM, step=0)
    expected = definition(x0.contiguous(), t, step=0, first_index=0)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(x0, before)


@pytest.mark.parametrize("shape", [(0,), (0, 3, 5), (3, 0)])
@pytest.mark.parametrize("provider", ["eager", "auto"])
def test_empty_batches(shape, provider):
    x0, t = torch.ones(shape), torch.ones(shape[0], dtype=torch.int64)
    x_t, eps = fused_q_sample(x0, t, SCHEDULE, STREAM, step=0, provider=provider)
    assert x_t.shape == eps.shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_its_noise_at_every_step(dtype):
    """At each of 1000 steps the noise in x_t has the standard deviation √(1−ᾱ): within 2 % for 64 k numbers and the rounding."""
    t = torch.arange(1, 1001)
    x0 = torch.zeros(1000, 4096, dtype=dtype)
    x_t, eps = fused_q_sample(x0, t, SCHEDULE, STREAM, step=0)
    expected = SCHEDULE.sqrt_one_minus_alpha_bar[1:] * eps.double().std(dim=1)
    assert ((x_t.double().std(dim=1) / expected - 1).abs() < 0.004).all()  # 8 bits of bf16
    signal = torch.ones(1000, 4096, dtype=dtype)
    noisy, _ = fused_q_sample(signal, t, SCHEDULE, STREAM, step=0)
    assert (noisy.double().std(dim=1) > 0).all()


@has_native
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_of_extreme_numbers(dtype):
    """Infinity, overflow, subnormals and ties, through every instruction set; a NaN stays a NaN."""
    values = [0.0, -0.0, torch.inf, -torch.inf, 65504, 6e-8, -6e-8, 1e-7, 3e38, 2**-14, 1 / 3]
    row = torch.tensor(values).repeat(7)[:73].to(dtype)
    x0 = torch.stack([row, -row])
    signal, noise = torch.tensor([1.0, 1 / 3]), torch.tensor([0.0, 1e-6])
    eps = STREAM.normal((2, 73), step=0, dtype=dtype)
    expected = (signal[:, None] * x0.float() + noise[:, None] * eps.float()).to(dtype)
    for variant in range(len(native.variants())):
        x_t, _ = native.q_sample(x0, signal, noise, STREAM, step=0, first_index=0, variant=variant)
        assert torch.equal(x_t, expected)
        nan, _ = native.q_sample(
            torch.full_like(x0, torch.nan),
            signal,
            noise,
            STREAM,
            step=0,
            first_index=0,
            variant=variant,
        )
        assert nan.isnan().all()


def test_offsets_have_64_bits():
    """Offsets past 2^31 elements, by arithmetic: the work order carries 64-bit counts, the sources no 32-bit product."""
    eps = torch.empty(1)
    task = native.noise_task(STREAM, eps, 0, 0, Use.NOISE, 1)
    task.batch, task.size = 3, 2**33 + 1
    assert (task.batch, task.size) == (3, 2**33 + 1)
    fields = dict(type(task)._fields_)
    assert all(fields[name] == ctypes.c_int64 for name in ("batch", "size"))


def written_at(variant, stream, *, group, index, step):
    """128 numbers of two groups anywhere in a sample of 2^34, through the library's entry for a range of groups."""
    rows = getattr(native._loaded(), f"ddpm_rows_{variant}")
    rows.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64]
    window = torch.empty(1, 128)
    task = native.noise_task(stream, window, step, index, Use.NOISE, 1)
    task.size = 2**34
    task.eps = window.data_ptr() - group * 64 * 4
    rows(ctypes.addressof(task), 0, group, group + 2)
    return window[0]


def defined_at(stream, *, group, index, step):
    """The same numbers from the definition's parts."""
    blocks = torch.arange(16 * group, 16 * group + 32).view(2, 16)
    words = philox4x32(counters(blocks, index, torch.tensor([0]), step, Use.NOISE), stream.key)
    return torch.stack(_normal(words, _SINGLE), dim=1).flatten()


@has_native
def test_blocks_past_2_to_31_are_where_the_definition_says():
    place = {"group": 2**28 - 2, "index": 2**63 - 1, "step": 2**32 - 1}
    for variant in native.variants():
        assert torch.equal(written_at(variant, STREAM, **place), defined_at(STREAM, **place))


def counter_of(words, key):
    """Philox backwards: multipliers are odd, so every round has an inverse."""
    multipliers, steps, mask = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 2**32 - 1
    inverse = [pow(multiplier, -1, 2**32) for multiplier in multipliers]
    c0, c1, c2, c3 = words
    for number in reversed(range(10)):
        k0, k1 = ((k + number * step) & mask for k, step in zip(key, steps, strict=True))
        before0, before2 = c3 * inverse[0] & mask, c1 * inverse[1] & mask
        c1 = c0 ^ before2 * multipliers[1] >> 32 ^ k0
        c3 = c2 ^ before0 * multipliers[0] >> 32 ^ k1
        c0, c2 = before0, before2
    return c0, c1, c2, c3


EXTREMES = [0, 1, 2, 2**24 - 1, 2**24 + 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]


@has_native
@pytest.mark.parametrize("a", EXTREMES)
def test_extreme_words_in_every_instruction_set(a):
    """Words that chance would show once in 2^32 numbers, found by running the cipher backwards."""
    found = 0
    for b, filler in itertools.product(EXTREMES, range(4)):
        c0, c1, c2, c3 = counter_of((a, b, a, filler), STREAM.key)
        if c2 >> 31:  # not a counter of the noise
            continue
        place = {"group": c0 // 32 * 2, "index": c2 << 32 | c1, "step": c3}
        if place["group"] + 2 > 2**28:
            continue
        expected = defined_at(STREAM, **place)
        for variant in native.variants():
            assert torch.equal(written_at(variant, STREAM, **place), expected), (variant, b)
        found += 1
    assert found >= len(EXTREMES)


@has_native
def test_fast_normal_is_normal():
    for dtype, use in itertools.product(DTYPES, [Use.NOISE, Use.PILOT]):
        address = {"step": 6, "first_index": 3, "dtype": dtype, "use": use}
        expected = STREAM.normal((5, 97), **address)
        assert torch.equal(fast_normal(STREAM, (5, 97), **address), expected)


@has_native
def test_operators_pass_torchs_own_checks():
    x0, t = batch((5, 3, 7), torch.float32)
    signal, noise = coefficients(t, SCHEDULE, x0.dtype)
    torch.library.opcheck(fused, (x0, signal, noise, 7, 3, 0))
    torch.library.opcheck(fused, (x0.clone().requires_grad_(), signal, noise, 7, 3, 0))
    torch.library.opcheck(normal, (torch.empty(0), [5, 3], 7, 3, 0, 0))


@has_native
def test_compiled_training_code_keeps_the_operator_whole():
    x0, t = batch((5, 3, 7), torch.float32)

    def noisy(x0, t, step):
        x_t, eps = fused_q_sample(x0, t, SCHEDULE, STREAM, step=step)
        return x_t + 1, eps + fast_normal(STREAM, (5, 3, 7), step=step, use=Use.SAMPLER)

    compiled = torch.compile(noisy, fullgraph=True, backend="aot_eager")
    for step in (0, 1):
        for found, expected in zip(compiled(x0, t, step), noisy(x0, t, step), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("provider", ["eager", "auto"])
def test_x_t_is_differentiable_in_x0(provider):
    x0, t = batch((5, 3, 7), torch.float32)
    x0.requires_grad_()
    x_t, eps = fused_q_sample(x0, t, SCHEDULE, STREAM, step=0, provider=provider)
    x_t.sum().backward()
    expected = SCHEDULE.sqrt_alpha_bar[t].float().view(-1, 1, 1).expand_as(x0)
    assert torch.equal(x0.grad, expected)
    assert not eps.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"provider": "natve"}, ValueError, "native"),
        ({"t": torch.tensor([0, 1])}, ValueError, "t = 0"),
        ({"t": torch.tensor([1.0, 2.0])}, TypeError, "integers"),
        ({"t": torch.tensor([1])}, ValueError, "shape"),
        ({"x0": torch.zeros(2, 3, dtype=torch.uint8)}, TypeError, "uint8"),
        ({"step": 2**32}, ValueError, "step"),
        ({"first_index": 2**63 - 1}, ValueError, "first_index"),
        ({"x0": torch.zeros(2, 3, device="meta")}, ValueError, "meta"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused(change, error, message):
    arguments = {"x0": torch.zeros(2, 3), "t": torch.tensor([1, 2]), "step": 0} | change
    with pytest.raises(error, match=message):
        fused_q_sample(schedule=SCHEDULE, stream=STREAM, **arguments)


def test_cuda_on_the_cpu_is_refused():
    with pytest.raises(ValueError, match=r"serves cuda"):
        fused_q_sample(
            torch.zeros(1, 3), torch.tensor([1]), SCHEDULE, STREAM, step=0, provider="cuda"
        )


def test_compute_dtype_of_the_coefficients():
    for dtype in DTYPES:
        assert coefficients(torch.tensor([1]), SCHEDULE, dtype)[0].dtype == compute_dtype(dtype)


# --- building -------------------------------------------------------------------------------------------------------------

FAILING = build.Recipe(
    name="failing",
    compilers=native.recipe().compilers,
    objects=(("native.cpp", ("-no-such-option-here",)),),
    options=(),
    link=(),
)


def small_recipe():
    """The baseline alone: a quick real build."""
    full = native.recipe()
    objects = (("rows.cpp", ("-DDDPM_ROWS=ddpm_rows_baseline", "-O0")),)
    return build.Recipe("small", full.compilers, objects, ("-std=c++17", "-fPIC", "-w"), ())


@has_native
def test_a_library_is_built_once(tmp_path, monkeypatch):
    build.load(small_recipe(), tmp_path)
    (library,) = tmp_path.glob("*.so")
    stamp = library.stat().st_mtime_ns
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("built again"))
    build.load(small_recipe(), tmp_path)
    assert library.stat().st_mtime_ns == stamp


@has_native
def test_a_failing_build_leaves_nothing_to_load(tmp_path):
    with pytest.raises(build.BuildError, match="failed"):
        build.load(FAILING, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


@has_native
def test_an_interrupted_build_is_done_again(tmp_path, monkeypatch):
    """A process that dies between compiling and renaming leaves a directory, never a library."""
    with monkeypatch.context() as context:
        context.setattr(build.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build.load(small_recipe(), tmp_path)
    assert list(tmp_path.glob("*.so")) == []
    build.load(small_recipe(), tmp_path)


@has_native
def test_a_damaged_library_is_built_again(tmp_path):
    build.load(small_recipe(), tmp_path / "first")
    (library,) = (tmp_path / "first").glob("*.so")
    damaged = tmp_path / "second" / library.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"half a libr")
    build.load(small_recipe(), damaged.parent)
    assert damaged.stat().st_size == library.stat().st_size


@has_native
def test_two_processes_build_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from ddpm_ref.kernels import build\n"
        "import tests_recipe\n"
        "run = build._build\n"
        "def counted(*arguments):\n"
        "    Path(sys.argv[1], f'built-by-{sys.argv[2]}').touch(); run(*arguments)\n"
        "build._build = counted\n"
        "build.load(tests_recipe.recipe, Path(sys.argv[1], 'cache'))\n"
    )
    (tmp_path / "tests_recipe.py").write_text(
        f"from ddpm_ref.kernels.build import Recipe\nrecipe = {small_recipe()!r}\n"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], env=environment)
        for name in "ab"
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("built-by-*"))) == 1
    assert len(list((tmp_path / "cache").glob("*.so"))) == 1


def test_no_compiler_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"no compiler: none of g\+\+"):
        build.load(native.recipe(), tmp_path)


def test_without_a_compiler_auto_takes_the_definition(tmp_path):
    """In a process of its own, with an empty cache and nothing on PATH."""
    program = (
        "import torch\n"
        "from ddpm_ref.kernels import fused_q_sample, q_sample_providers\n"
        "from ddpm_ref.noise import NoiseStream\n"
        "from ddpm_ref.schedule import linear_schedule\n"
        "reasons = q_sample_providers()\n"
        "assert reasons['native'].startswith('no compiler'), reasons\n"
        "assert 'compiler' in reasons['compiled'], reasons\n"
        "one = torch.ones(2, 3), torch.tensor([1, 2]), linear_schedule(5), NoiseStream(0)\n"
        "auto = fused_q_sample(*one, step=0)\n"
        "eager = fused_q_sample(*one, step=0, provider='eager')\n"
        "assert torch.equal(auto[0], eager[0])\n"
        "try:\n"
        "    fused_q_sample(*one, step=0, provider='native')\n"
        "except ValueError as error:\n"
        "    assert 'no compiler' in str(error)\n"
        "else:\n"
        "    raise AssertionError('native ran')\n"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path), "PYTHONPATH": str(root),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@has_native
def test_a_read_only_cache_falls_back_to_the_temporary_directory(tmp_path, monkeypatch):
    blocked, temporary = tmp_path / "blocked", tmp_path / "temporary"
    blocked.write_text("a file where the cache's directory should be")  # also refuses the superuser
    temporary.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(build.tempfile, "tempdir", str(temporary))
    build.load(small_recipe())
    assert len(list(temporary.glob("ddpm_ref-*/*.so"))) == 1


def test_no_writable_place_is_a_reason(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(build.BuildError, match=r"no directory|no compiler"):
        build.load(small_recipe(), blocked / "cache")


@pytest.mark.skipif(NVCC is None, reason="nvcc is not on PATH")
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_cuda_source_compiles(tmp_path, capability):
    library = build.load(cuda.recipe(capability), tmp_path)
    assert library.ddpm_run_cuda
