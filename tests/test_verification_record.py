"""The record of a verification and the report's section on it."""

import math
from collections.abc import Sequence

from torch import Tensor

from bench.measure.laws.examine import (
    Subject,
    examine,
    known_laws,
    plain,
    record,
    subjects,
    verification_record,
)
from bench.report.laws.chapter import section
from ddpm_ref.conformance import Implementation, Reference, Setting


class Half(Implementation):
    """Knows the KL, gets it wrong in one way and offers nothing else."""

    name = "half"
    version = "0.1"

    def settings(self) -> Sequence[Setting]:
        return ()

    def gaussian_kl(
        self, mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
    ) -> Tensor:
        return (log_var2 - log_var1) / 2 + math.nan


def test_a_record_is_strict_and_the_section_reads_it() -> None:
    chosen = known_laws(["I9-kl", "I21"])
    found = [
        examine(each, chosen) for each in (*subjects("ddpm_ref"), Subject(Half(), "half.py:Half"))
    ]
    kept = record(found, chosen)
    assert kept.results["failed"] == []
    made = section([kept])
    assert made is not None
    assert not made.failed
    assert made.headlines[0].startswith("**2 laws** hold")
    row = next(
        r for r in kept.results["laws"] if r["implementation"] == "half" and r["law"] == "I9-kl"
    )
    assert (row["error"], row["classification"]) == (None, "bug")


def test_a_failure_of_ours_fails_the_section() -> None:
    class Broken(Reference):
        def hybrid_loss(self, setting: Setting, simple: Tensor, bound_term: Tensor) -> Tensor:
            return simple

    chosen = known_laws(["I21"])
    kept = record([examine(Subject(Broken(), "ddpm_ref"), chosen)], chosen)
    assert kept.results["failed"] == ["I21-hybrid"]
    made = section([kept])
    assert made is not None
    assert made.failed


def test_no_record_no_section() -> None:
    assert section([]) is None


def test_the_main_jobs_record_counts_only_our_failures() -> None:
    kept = verification_record(laws=known_laws(["I20-reverse"]))
    assert [one["source"] for one in kept.results["implementations"]] == ["ddpm_ref", "article"]
    assert kept.results["failed"] == []
    statuses = {(r["implementation"], r["status"]) for r in kept.results["laws"]}
    assert statuses == {("ddpm_ref", "pass"), ("article", "fail")}


def test_infinities_become_words_in_a_witness() -> None:
    assert plain({"a": [math.inf, math.nan, 1.5], "b": None}) == {
        "a": ["inf", "nan", 1.5],
        "b": None,
    }
