"""The section "Is the noise normal?": what a billion numbers of the stream showed."""

from collections.abc import Sequence

from bench.record import Record
from bench.record.kinds import violations
from bench.report.page.blocks import Fold, Paragraph, Section, Table

TITLE = "Is the noise normal?"

_METHOD = (
    "The stream's float32 numbers under tests of their distribution (moments to order 8, Kolmogorov–Smirnov, Anderson–Darling, "
    "the rates beyond 3 to 6σ) and of their independence (across elements, samples, steps and seeds, neighbours included). The "
    "level is shared among all tests: each p-value must reach its share."
)


def section(records: Sequence[Record]) -> Section | None:
    """The findings of the largest test; None where the noise was not tested."""
    mine = [record for record in records if record.kind == "noise"]
    if not mine:
        return None
    largest = max(mine, key=lambda record: record.protocol["count"])
    results, count = largest.results, largest.protocol["count"]
    findings = results["findings"]
    verdict = "pass" if results["passed"] else "do NOT all pass"
    rows = [
        (row["name"], f"{row['statistic']:.6g}", row["expected"], f"{row['p_value']:.2g}")
        for row in findings
    ]
    table = Table(
        ("test", "found", "expected", "p-value"), rows, caption=f"{count:,} numbers, one seed."
    )
    return Section(
        TITLE,
        [Paragraph(_METHOD), Fold(f"All {len(findings)} tests", [table])],
        data=dict(results),
        headlines=[f"{count:,} numbers of the noise stream {verdict} {len(findings)} tests."],
        failed=bool(violations(largest)),
        left_out=[
            (r.name, "a test of as many or more numbers is shown") for r in mine if r is not largest
        ],
    )
