"""A schedule's findings in the terminal, from the fields of `ddpm-bench schedule --json`."""

from collections.abc import Mapping
from typing import Any


def as_text(found: Mapping[str, Any]) -> str:
    """Title, numbers, tables, then every finding: errors first."""
    lines = [f"schedule {found['name']} ({'; '.join(found['read']) or 'as given'})"]
    if "T" in found:
        lines += [
            *_numbers(found),
            *_spacing(found["spacing"]),
            *_weightings(found["weightings"]),
            *_leak(found.get("leak")),
        ]
    findings = sorted(found["findings"], key=lambda each: each["level"] != "error")
    lines += (
        ["", *(f"{each['level']}: {each['text']}" for each in findings)]
        if findings
        else ["", "nothing to note"]
    )
    return "\n".join(lines)


def _numbers(found: Mapping[str, Any]) -> list[str]:
    last = "-inf" if found["log_snr_T"] is None else f"{found['log_snr_T']:.5g}"
    rows = [
        ("T", f"{found['T']}; the network predicts {found['predicts']}"),
        ("beta", f"{found['beta_1']:.6g} at 1, {found['beta_T']:.6g} at T"),
        ("log SNR", f"{found['log_snr_1']:.5g} at 1, {last} at T"),
        ("sqrt(alpha_bar_T)", f"{found['sqrt_alpha_bar_T']:.5g}, SNR {found['snr_T']:.5g}"),
        ("L_T", f"{found['prior_bits_zero']:.4g} bits/dim for x0 = 0, {found['prior_bits_one']:.4g} for |x0| = 1"),
        ("no noise in bf16", f"first {found['vanishing']['bf16']} steps; in fp16: first {found['vanishing']['fp16']}"),
    ]  # fmt: skip
    return [f"  {name:<18}{text}" for name, text in rows]


def _spacing(rows: list[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [f"  {'sampler':<12}{'spacing':<12}{'first t':>9}{'last t':>9}{'data left there':>18}"]
    for row in rows:
        left = "outside" if row["sqrt_alpha_bar"] is None else f"{row['sqrt_alpha_bar']:.5g}"
        mark = " (configured)" if row["configured"] else ""
        lines.append(
            f"  {row['steps']:<12}{row['spacing']:<12}{row['first']:>9}{row['last']:>9}{left:>18}{mark}"
        )
    return lines


def _weightings(rows: list[Mapping[str, Any]]) -> list[str]:
    return [_weighting(row) for row in rows]


def _weighting(row: Mapping[str, Any]) -> str:
    if not row["monotone"]:
        return f"  {row['name']}: monotone no: w(t) falls at {row['falls']} steps (t = {row['from']} … {row['to']}), so p_w has negative parts"
    mass, half = 0.0, 2
    for step, part in enumerate(row["p_w"], start=2):
        mass += part
        if mass >= 0.5:
            half = step
            break
    return (
        f"  {row['name']}: monotone yes: a mixture of bounds of noisy data; p_w has {row['p_w'][0]:.3g} at t = 2, "
        f"half its mass up to t = {half}"
    )


def _leak(leak: Mapping[str, float] | None) -> list[str]:
    if leak is None:
        return []
    return [
        f"  largest eigenvalue {leak['largest_eigenvalue']:.4g}: mean along it {leak['mean']:.4g}, sampled from pure noise {leak['mean_sampled']:.4g}; "
        f"deviation {leak['deviation']:.4g}, sampled {leak['deviation_sampled']:.4g}",
        f"  L_T of these data   {leak['prior_bits']:.4g} bits/dim",
    ]
