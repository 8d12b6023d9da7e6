"""Laws on schedules: the tables are those of the named definition, and accurate at both ends."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ddpm_ref.conformance.implementation import Implementation, NotOffered
from ddpm_ref.conformance.lawbook.law import (
    FLOAT64_ONLY,
    Case,
    Check,
    Law,
    settings_asked,
    settings_of,
    settings_with_truth,
)
from ddpm_ref.conformance.lawbook.truth import Number, Row, Truth
from ddpm_ref.conformance.setting import Setting

_ACCURACY = "The notation table promises tables accurate to 1e-12 at every t; float64 allows 1e-15."


def _entry(key: str) -> Callable[[Mapping[str, Tensor]], Tensor | None]:
    return lambda tables: tables.get(key)


def _table_law(key: str, quantity: Callable[[Row], Number], *, relative: bool) -> Check:
    def check(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
        for setting, known in settings_asked(implementation):
            expected = known.table(quantity)
            size = expected.abs()
            scale = torch.where((size > 0) & relative, size, 1.0)
            moved = quantity(known.columns(known.steps())).bound[1]
            yield _table_case(setting, known, key, quantity, expected, scale, moved.nan_to_num(0.0))

    return check


def _table_case(
    setting: Setting,
    known: Truth,
    key: str,
    quantity: Callable[[Row], Number],
    expected: Tensor,
    scale: Tensor,
    moved: Tensor,
) -> Case:
    return Case(
        method="tables",
        arguments={"setting": setting},
        expected=expected,
        scale=scale,
        table=moved,
        select=_entry(key),
        exact=lambda index: quantity(known.rows[index[0] + 1]),
        label=f"tables[{key!r}]",
        may_refuse=True,
    )


def _finite(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting in settings_of(implementation):

        def count(candidate: Implementation, setting: Setting = setting) -> Tensor:
            tables = candidate.tables(setting)
            bad = 0
            for key, table in tables.items():
                allowed = table[:-1] if setting.zero_terminal_snr and key == "log_snr" else table
                bad += int((~torch.isfinite(allowed)).sum())
            return torch.tensor([bad])

        yield Case(
            "tables",
            {"setting": setting},
            torch.zeros(1, dtype=torch.float64),
            run=count,
            label="number of NaN or infinite table entries",
            may_refuse=True,
        )


def _falling(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting in settings_of(implementation):

        def rises(candidate: Implementation, setting: Setting = setting) -> Tensor:
            tables = candidate.tables(setting)
            table = tables.get("log_snr")
            table = tables.get("alpha_bar") if table is None else table
            if table is None:
                raise NotOffered(f"{candidate.name} offers no table of ᾱ or log-SNR")
            return (table.diff() >= 0).sum().reshape(1)

        yield Case(
            "tables",
            {"setting": setting},
            torch.zeros(1, dtype=torch.float64),
            run=rises,
            label="number of steps at which the log-SNR does not fall",
            may_refuse=True,
        )


def _last_alpha_bar(tables: Mapping[str, Tensor]) -> Tensor | None:
    table = tables.get("alpha_bar")
    return None if table is None else table[-1:]


def _terminal(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known in settings_with_truth(implementation):
        last = known.rows[-1]
        yield Case(
            "tables",
            {"setting": setting},
            torch.tensor([float(last.alpha_bar)], dtype=torch.float64),
            float(last.alpha_bar) or 1.0,
            select=_last_alpha_bar,
            exact=lambda index, last=last: last.alpha_bar,  # type: ignore[misc]
            label="last entry of tables['alpha_bar']",
            table=float(known.columns(known.steps()).alpha_bar.bound[1][-1]),
            may_refuse=True,
        )


def _row(
    id: str,
    key: str,
    quantity: Callable[[Row], Number],
    statement: str,
    why: str,
    source: str,
    *,
    relative: bool = True,
) -> Law:
    return Law(
        id=id,
        title=f"table {key}",
        statement=statement,
        derivation=why,
        source=source,
        tolerances=FLOAT64_ONLY,
        reason=(
            "Relative. " if relative else "Absolute; relative below 1 would exceed float64 near 0. "
        )
        + _ACCURACY,
        check=_table_law(key, quantity, relative=relative),
    )


LAWS = (
    _row(
        "I24-beta",
        "beta",
        lambda r: r.beta,
        "β_t is what the schedule's name defines, for every T that the name accepts.",
        "Each name is a definition: linear in β (not in √β), cosine and sigmoid in ᾱ with β ≤ 0.999. A constructor may "
        "refuse a T, but may not return another schedule or β > 1.",
        "Ho et al. 2020, section 4; Nichol & Dhariwal 2021, eq. 17; Jabri et al. 2023. Seen: 'linear' meaning √-linear, "
        "T-scaled β > 1 for T < 20.",
    ),
    _row(
        "I24-alpha-bar",
        "alpha_bar",
        lambda r: r.alpha_bar,
        "ᾱ_t = ∏_{s≤t}(1−β_s); respaced, the ᾱ of the chosen steps.",
        "The product of the kept fractions of variance, by induction from x_t = √(1−β_t) x_{t−1} + √β_t ε.",
        "Ho et al. 2020, eq. 4. Seen: α_t returned where ᾱ_t is expected.",
    ),
    _row(
        "I15-rest",
        "one_minus_alpha_bar",
        lambda r: r.rest,
        "1−ᾱ_t is accurate relative to itself, down to the first step.",
        "1−ᾱ_1 = β_1 is 1e-4 or less; from ᾱ in float32 it is off by 1.7e-4, from ᾱ in float64 by 1e-12. −expm1(Σ ln(1−β)) "
        "or sigmoid(−λ) lose nothing.",
        "Seen: 1−ᾱ formed from float32 ᾱ; the noise level of the first steps depends on it.",
    ),
    _row(
        "I15-log-snr",
        "log_snr",
        lambda r: r.log_snr,
        "λ_t = ln ᾱ_t/(1−ᾱ_t), −∞ at zero terminal SNR.",
        "The logarithm of eq. (1); all weightings are functions of it.",
        "Kingma et al. 2021, eq. 3.",
        relative=False,
    ),
    _row(
        "I7-snr",
        "snr",
        lambda r: r.snr,
        "SNR_t = ᾱ_t/(1−ᾱ_t): a ratio of variances.",
        "Signal power over noise power of x_t = √ᾱ x_0 + √(1−ᾱ) ε for data of variance 1.",
        "Kingma et al. 2021, eq. 2. Seen: 'SNR' meaning √ᾱ/√(1−ᾱ).",
    ),
    _row(
        "I2-variance",
        "posterior_variance",
        lambda r: r.posterior_variance,
        "β̃_t = β_t (1−ᾱ_{t−1})/(1−ᾱ_t), 0 at t = 1; respaced, with β and ᾱ of the visited steps.",
        "Precisions add: 1/β̃ = 1/(1−ᾱ_{t−1}) + (1−β_t)/β_t.",
        "Ho et al. 2020, eq. 7. Seen: β of the full schedule used under respacing.",
    ),
    Law(
        "I14-tables",
        "tables finite",
        "No table holds NaN or an infinity, except λ_T = −∞ at zero terminal SNR.",
        "All quantities are finite for β in (0, 1).",
        "Seen: cosine with ᾱ_0 = 1 → 0/0; log β under a square root; T-scaled linear with β > 1, silently NaN.",
        {torch.float64: 0.0},
        "A count.",
        _finite,
    ),
    Law(
        "I26-falling",
        "log-SNR falls",
        "ᾱ_t and λ_t fall strictly in t.",
        "Each step multiplies ᾱ by 1−β_t < 1.",
        "Kingma et al. 2021, section 3.1.",
        {torch.float64: 0.0},
        "A count.",
        _falling,
    ),
    Law(
        "I25-terminal",
        "end of the schedule",
        "ᾱ_T is that of the definition: 2.4e-9 for the capped cosine at T = 1000, exactly 0 at zero terminal SNR.",
        "The cap β ≤ 0.999 leaves a thousandth of the last ᾱ; the rescaling subtracts √ᾱ_T.",
        "Nichol & Dhariwal 2021, section 3.2; Lin et al. 2024, algorithm 1. Seen: uncapped cosine, ᾱ_T = 3.7e-33.",
        {torch.float64: 1e-10},
        "Relative to ᾱ_T, which a product of T factors determines to T·1e-16; absolute where it is 0.",
        _terminal,
    ),
)
