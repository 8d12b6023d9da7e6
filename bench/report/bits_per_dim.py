"""The bound of one data set as the terminal and a picture show it, from the fields of `ddpm-bench elbo --json`."""

import math
from collections.abc import Mapping
from typing import Any

from bench.record import write_picture

_NAMES = {
    "prior": "L_T   prior",
    "diffusion": "ΣL_t  diffusion",
    "reconstruction": "L_0   reconstruction",
    "total": "total bound",
}


def as_text(found: Mapping[str, Any]) -> str:
    """A table of the terms, the meaning of the errors, and the protocol."""
    unit = _nats_per_bit(found)
    lines = [f"{'':22}{'nats/example':>24}{'bits/dim':>24}"]
    for key, name in _NAMES.items():
        mean, error = found["terms_nats"][key]["mean"], found["terms_nats"][key]["stderr"]
        in_bits = None if error is None else error / unit
        lines.append(
            f"{name:22}{_with_error(mean, error):>24}{_with_error(mean / unit, in_bits):>24}"
        )
    lines += [
        f"± standard error {found['stderr_meaning']}{_reach(found['stderr_degrees_of_freedom'])}",
        f"{found['examples']} examples of {found['dims']} dimensions, {found['evaluations']} network evaluations",
        f"protocol: {found['protocol']['text']}",
        *([f"read from the configuration: {'; '.join(found['read'])}"] if found["read"] else []),
    ]
    return "\n".join(lines)


def _nats_per_bit(found: Mapping[str, Any]) -> float:
    """Nats per example that make one bit per dimension."""
    return float(found["dims"]) * math.log(2)


def _reach(degrees_of_freedom: float) -> str:
    """How many standard errors of the total the 95 % interval reaches."""
    from scipy.stats import t

    if degrees_of_freedom == 0:
        return "; one image cannot tell"
    reach = t.ppf(0.975, degrees_of_freedom)
    return f"; 95 % interval of the total: ± {reach:.3g} of them (Student's t, {degrees_of_freedom:.3g} degrees of freedom)"


def _with_error(value: float, error: float | None) -> str:
    if error is None:
        return f"{value:.5f} ± unknown"
    return f"{value:.5g} (exact)" if error == 0 else f"{value:.5f} ± {error:.2g}"


def draw_curve(found: Mapping[str, Any], path: str) -> None:
    """The term of every step over t, on logarithmic axes, as a picture whose kind the file name's ending says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    bits = [max(value / _nats_per_bit(found), 0.0) for value in found["curve_nats"]]
    axes.plot(range(2, len(bits) + 1), bits[1:], label="L_{t-1}, t ≥ 2", color="#0068a8")
    axes.plot([1], bits[:1], "o", label="L_0 (decoder)", color="#c8500a")
    axes.set(xscale="log", xlabel="step t", ylabel="bits/dim")
    axes.set_yscale("symlog", linthresh=max(max(bits) * 1e-6, 1e-12))
    smoothed = " (curve smoothed)" if found["curve_is_smoothed"] else ""
    axes.set_title(f"bound {found['bits_per_dim']:.4f} bits/dim{smoothed}")
    axes.legend(frameon=False)
    write_picture(figure, path)
