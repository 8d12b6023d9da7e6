"""How many machine instructions a number costs, counted by callgrind: a figure that no busy machine blurs.

A small program draws n and then 3n numbers under valgrind; the difference of the two counts, divided by 2n, is what one
number costs in noise, x_t, loads, stores and loop, without start-up. Valgrind does not know AVX-512, so the processor that
it shows to the program has AVX2 at most.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.terminal.usage import UsageError
from ddpm_ref.kernels import build, native

_NUMBERS = 1 << 18


def count_instructions() -> dict[str, float]:
    """Instructions per number, by instruction set.

    Raises:
        UsageError: valgrind or the native provider is missing.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise UsageError(
            "--instructions needs valgrind, which is not on PATH; install it with the system's package manager"
        )
    try:
        library = Path(build.load(native.recipe())._name)
    except build.BuildError as error:
        raise UsageError(f"--instructions needs the native provider: {error}") from error
    with tempfile.TemporaryDirectory() as directory:
        program = _program(Path(directory), library)
        counts = {}
        for variant in range(2):  # AVX2 and baseline where there is AVX2
            few, name = _counted(valgrind, program, _NUMBERS, variant)
            many, _ = _counted(valgrind, program, 3 * _NUMBERS, variant)
            counts[name] = (many - few) / (2 * _NUMBERS)
            if name == "baseline":
                break
    return counts


def _program(directory: Path, library: Path) -> Path:
    source = Path(__file__).with_suffix(".cpp")
    program = directory / "count"
    compiler = next(filter(None, map(shutil.which, native.recipe().compilers)))
    command = [compiler, "-O2", f"-I{build.SOURCE}", str(source), str(library)]
    command += [f"-Wl,-rpath,{library.parent}", "-fopenmp", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def _counted(valgrind: str, program: Path, numbers: int, variant: int) -> tuple[int, str]:
    """(instructions of the whole program, name of the instruction set)."""
    done = subprocess.run(
        [
            valgrind,
            "--tool=callgrind",
            f"--callgrind-out-file={program}.out",
            str(program),
            str(numbers),
            str(variant),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    collected = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if collected is None:
        raise RuntimeError(f"callgrind told no count: {done.stderr[-300:]}")
    return int(collected[1]), done.stdout.strip()
