"""What a measurement ran on: machine, versions, threads, commit.

Enough to judge and to repeat a measurement, and nothing that names a person or a place: no host
name, no user name, no path.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "torchvision",
    "torchmetrics",
    "numpy",
    "scipy",
    "scikit-learn",
    "pytest-benchmark",
    "matplotlib",
    "diffusers",
    "denoising-diffusion-pytorch",
    "azula",
    "smalldiffusion",
    "flow-matching",
)
"""Packages whose versions are recorded: those that compute, and the peers."""

_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512_bf16", "amx_bf16", "asimd", "sve")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "GOMP_SPINCOUNT")


def environment() -> dict[str, Any]:
    """The present environment as JSON values.

    torch is asked for threads and accelerator only where it is loaded already: what did not use it
    does not wait for it.
    """
    return {
        "machine": _machine(),
        "accelerator": _accelerator(),
        "os": _operating_system(),
        "python": platform.python_version(),
        "packages": packages(),
        "compiler": _compiler(),
        "threads": _threads(),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": _dirty(),
    }


def packages() -> dict[str, str | None]:
    """Version of each package in `_PACKAGES`; None where it is not installed."""
    versions = {name: _version(name) for name in _PACKAGES}
    if torch := sys.modules.get("torch"):
        versions["torch"] = str(torch.__version__)  # with the build: 2.9.0+cpu
    return versions


def same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether timings of two environments may be compared: equal processor, cores, accelerator."""
    return _hardware(one) == _hardware(other)


def _hardware(environment: Mapping[str, Any]) -> tuple[object, ...]:
    machine, accelerator = environment.get("machine") or {}, environment.get("accelerator") or {}
    keys = ("cpu", "architecture", "cores")
    return (*(machine.get(key) for key in keys), accelerator.get("name"))


def commit_label(environment: Mapping[str, Any]) -> str:
    """The commit in ten characters, with `+` where the working tree had changes."""
    commit = environment.get("commit")
    if not commit:
        return "no commit"
    return f"{commit[:10]}{'+' if environment.get('dirty') else ''}"


def machine_label(environment: Mapping[str, Any]) -> str:
    """The accelerator, or the processor and its cores: `AMD EPYC, 2 cores`."""
    accelerator = environment.get("accelerator")
    if accelerator:
        return str(accelerator["name"])
    machine = environment.get("machine") or {}
    cores = machine.get("cores")
    return f"{machine.get('cpu', 'unknown processor')}, {cores} core{'' if cores == 1 else 's'}"


def torch_label(environment: Mapping[str, Any]) -> str:
    """The torch release without its build: `torch 2.14.1`."""
    version = (environment.get("packages") or {}).get("torch")
    return f"torch {str(version).partition('+')[0]}" if version else "unknown torch"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    info = _cpu_info()
    present = set(info.get("flags", info.get("Features", "")).split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": _usable_cores(),
        "flags": [flag for flag in _FLAGS if flag in present],
        "memory_gib": _memory_gib(),
    }


def processor() -> str:
    """Type of the processor: name, and where there are such numbers family, model and stepping."""
    info = _cpu_info()
    numbers = [info[key] for key in ("cpu family", "model", "stepping") if key in info]
    name = info.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({'/'.join(numbers)})" if numbers else str(name)


@cache
def _cpu_info() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo; empty where the system has none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _accelerator() -> dict[str, Any] | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
    }


def _operating_system() -> str:
    """Kernel and distribution; the kernel's free text, which may name a place, is left out."""
    release = re.match(r"\d+(\.\d+)*", platform.release())
    kernel = f"{platform.system()} {release.group() if release else ''}".strip()
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = ""
    return f"{kernel}, {name}" if name else kernel


@cache
def _compiler() -> str | None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    text = _output([compiler, "--version"])
    return text.splitlines()[0] if text else None


def _threads() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    counts = {
        "intra_op": torch.get_num_threads() if torch else None,
        "inter_op": torch.get_num_interop_threads() if torch else None,
    }
    return counts | {name: os.environ.get(name) for name in _THREAD_VARIABLES}


def _dirty() -> bool | None:
    status = _git("status", "--porcelain", "--untracked-files=no")
    return None if status is None else bool(status)


def _git(*words: str) -> str | None:
    """git's answer about *this* project; None without git, and inside somebody else's repository."""
    root = Path(__file__).resolve().parents[2]
    top = _output(["git", "-C", str(root), "rev-parse", "--show-toplevel"])
    if top is None or Path(top).resolve() != root:
        return None
    return _output(["git", "-C", str(root), *words])


def _output(command: list[str]) -> str | None:
    """Standard output of a short command; None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
