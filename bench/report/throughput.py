"""The section "Throughput": the contest, every case of the suite, the scaling curve, the GPU.

Times of two machines, or under two torch releases, are never in one section. Of several records of one kind the latest
counts for each device and thread count; older ones are for `compare`, and the report names them. Rows of our own are
marked, because a speed-up over one's own slower way is not a speed-up.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from bench.record import Record
from bench.record.environment import machine_label, torch_label
from bench.record.kinds import violations
from bench.report.page.blocks import (
    Block,
    Cell,
    Figure,
    Fold,
    Note,
    Paragraph,
    Section,
    Table,
)
from bench.report.page.digits import interval, number
from bench.report.page.figures import PALETTE
from bench.report.suite import Row, shape_of, suite_blocks, threads_in_words
from bench.report.timings import rounds_figure, spread_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

SUITE, CONTEST, GPU = "throughput", "throughput-contest", "gpu-visit"
_TRAINING = "training-contest"

KINDS = (SUITE, CONTEST, _TRAINING, GPU)
COPIES = ("copy", "clone")
"""Rows of a contest that noise nothing: what the memory alone allows."""


_METHOD = (
    "Drawing the noise and forming x_t is overhead in every training step. Each way was checked right before it was "
    "timed, at the shape and in the dtype that were timed: ours against the definition bit for bit, the others "
    "against √ᾱ x₀ + √(1−ᾱ) ε in float64. In the contest all take turns in one process, in random order, "
    "and the ratio of medians has a paired bootstrap interval over rounds."
)
_NO_GPU = "GPU: not measured here. `ddpm-bench gpu-visit` on a machine with a GPU makes the record."


def section(records: Sequence[Record]) -> Section | None:
    """What was measured about speed; None where nothing was."""
    suites = _latest(records, SUITE, lambda r: (r.protocol["device"], r.protocol["threads"]))
    # The most thorough contest speaks for a device, the latest of several that are equally so.
    held = [record for record in records if record.kind == CONTEST]
    by_rounds = sorted(held, key=lambda r: (r.protocol["rounds"], r.created, r.sha256))
    contests = _last(by_rounds, CONTEST, lambda r: r.protocol["device"])
    visits = _latest(records, GPU, lambda r: r.results["device"])
    trained = _latest(records, _TRAINING, lambda r: _TRAINING)
    if not suites and not contests and not visits and not trained:
        return None
    shown = {record.sha256 for record in (*suites, *contests, *visits, *trained)}
    older = [r for r in records if r.kind in KINDS and r.sha256 not in shown]
    cases = [case for record in contests for case in record.results["contests"]]
    rows = [row for record in suites for row in record.results["rows"]]
    missing = [dict(m) for record in suites for m in record.results["not_measured"]]
    gpu = [case for record in visits for case in record.results["contests"]]
    loops = [case for record in trained for case in record.results["contests"]]
    blocks: list[Block] = [
        Paragraph(_METHOD),
        *_contest_blocks(cases),
        *filter(None, [rounds_figure(contests)]),
        *_training_blocks(loops),
        *suite_blocks(rows),
        *(
            Fold("How each timing scatters", [figure])
            for figure in [spread_figure(suites)]
            if figure
        ),
        *_gpu_blocks(visits),
        *_drift_notes(suites),
        *_missing_blocks(missing, [*cases, *gpu]),
    ]
    wrong = any(violations(record) for record in (*suites, *contests, *visits, *trained))
    return Section(
        title="Throughput",
        blocks=blocks,
        data={
            "contests": cases,
            "training": loops,
            "suite": rows,
            "gpu": gpu,
            "not_measured": missing,
        },
        headlines=[_headline(case) for case in _widest([*cases, *gpu])],
        failed=wrong,
        left_out=[
            (r.name, "followed by a later or more thorough record of the same") for r in older
        ],
    )


def apart(record: Record) -> str:
    """Machine and torch: between two of them no time may be compared."""
    if record.kind not in KINDS:
        return ""
    return f"{machine_label(record.environment)}, {torch_label(record.environment)}"


def _latest(
    records: Iterable[Record], kind: str, key: Callable[[Record], object]
) -> tuple[Record, ...]:
    return _last(sorted(records, key=lambda r: (r.created, r.sha256)), kind, key)


def _last(
    records: Iterable[Record], kind: str, key: Callable[[Record], object]
) -> tuple[Record, ...]:
    found: dict[object, Record] = {}
    for record in records:
        if record.kind == kind:
            found[key(record)] = record
    return tuple(found.values())


def _widest(cases: Sequence[Row]) -> list[Row]:
    """For each device the case with most threads, and of these the largest."""
    best: dict[str, Row] = {}
    for case in cases:
        if "speed_up" in case:
            held = best.get(case["device"])
            size = (case["threads"], case["elements"])
            if held is None or size > (held["threads"], held["elements"]):
                best[case["device"]] = case
    return list(best.values())


def _headline(case: Row) -> str:
    ratio = case["speed_up"]
    where = threads_in_words(case["threads"]) if case["device"] == "cpu" else "the GPU"
    ends = f"95 % interval {ratio['low']:.1f} to {ratio['high']:.1f}"
    if ratio["low"] > 1:
        says = f"{ratio['estimate']:.1f} × as fast as the fastest way of other people"
    elif ratio["high"] < 1:
        says = f"slower than the fastest way of other people ({ratio['estimate']:.2f} × its speed)"
    else:
        says = "within noise of the fastest way of other people"
    return (
        f"Noising a batch of {shape_of(case)} on {where}, our `{case['candidate']}` is {says}, "
        f"{case['fastest_opponent']} ({ends}){_own_ways(case)}."
    )


def _ours(case: Row) -> list[str]:
    """Our own ways in a contest; in a record that does not say whose they are, what is neither an opponent nor a mere copy."""
    own = [row["contender"] for row in case["rows"] if row.get("origin") == "own"]
    if own or "speed_up_each" not in case:
        return own or [case["candidate"]]
    names = [row["contender"] for row in case["rows"]]
    return [name for name in names if name not in {*case["speed_up_each"], *COPIES}]


def _own_ways(case: Row) -> str:
    """`; our own `compiled` takes 2.1 × as long`: what the headline's factor does not hold for."""
    times = {row["contender"]: float(row["ns_per_element"]) for row in case["rows"]}
    told = [
        f"our own `{name}` takes {times[name] / times[case['candidate']]:.1f} × as long"
        for name in _ours(case)
        if name != case["candidate"]
    ]
    return f"; {', '.join(told)}" if told else ""


def _owned(case: Row, name: str) -> str:
    """A contender's name, ours marked."""
    return f"`{name}` (ours)" if name in _ours(case) else name


_LOOPS = (
    "Whole training steps, ours and two libraries' own loops, on copies of one network, with equal batches, images in memory and "
    "threads. All agree on the loss and the gradient of a given batch; then they take turns. A ratio above 1 means that ours is faster "
    "than the faster of the two. Compiling is stated apart."
)


def _training_blocks(cases: Sequence[Row]) -> list[Block]:
    """Images a second by loop, and where one of our steps spends its time."""
    if not cases:
        return []
    header = ["images per second", *(_loop_place(case) for case in cases)]
    names = list(dict.fromkeys(row["contender"] for case in cases for row in case["rows"]))
    body: list[list[str | Cell]] = []
    for name in names:
        found = [{row["contender"]: row for row in case["rows"]}.get(name) for case in cases]
        own = any(row is not None and row["origin"] == "own" for row in found)
        rates = [f"{row['images_per_second']:,.0f}" if row else "–" for row in found]
        body.append([Cell(name, "strong" if own else "plain"), *rates])
        if own:
            ratios = [_interval(case["speed_up"].get(name)) for case in cases]
            body.append([f"{name}: times the faster library", *ratios])
        seconds = [row["compile_seconds"] if row else 0.0 for row in found]
        if any(seconds):
            body.append([f"{name}: compiling", *(f"{value:.0f} s" for value in seconds)])
    parts = list(dict.fromkeys(row["part"] for case in cases for row in case["parts"]))
    shares: list[list[str | Cell]] = [
        [part, *(_part(case, part) for case in cases)] for part in parts
    ]
    return [
        Paragraph(_LOOPS),
        Table(header, body, "Training loops. Medians over rounds; 95 % intervals."),
        Table(["share of a step", *header[1:]], shares, "Where a step's time goes, eager."),
    ]


def _loop_place(case: Row) -> str:
    return f"{case['case']}, batch {case['batch']}, {threads_in_words(case['threads'])}"


def _part(case: Row, part: str) -> str:
    row = {row["part"]: row for row in case["parts"]}.get(part)
    return f"{row['share']:.1%} ({row['seconds'] * 1e3:.2f} ms)" if row else "–"


def _contest_blocks(cases: Sequence[Row]) -> list[Block]:
    if not cases:
        return []
    return [_contest_table(cases, "Contest: noise + q_sample"), _contest_figure(cases)]


def _contest_table(cases: Sequence[Row], caption: str) -> Table:
    """One column per case, one row per contender, then what follows from them."""
    names = list(dict.fromkeys(row["contender"] for case in cases for row in case["rows"]))
    body: list[list[str | Cell]] = [
        [
            _owned(cases[0], name),
            *(_ns(case, name) for case in cases),
        ]
        for name in names
    ]
    for label, key in (
        ("speed-up of ours over the fastest of others", "speed_up"),
        ("speed-up with outputs given, over the fastest of all others", "speed_up_out"),
        ("time as a multiple of cloning x₀", "clone_multiple"),
        ("time as a multiple of copying x₀ in place", "copy_multiple"),
    ):
        body.append([Cell(label, "strong"), *(_interval(case.get(key)) for case in cases)])
    body.append(["fastest of others", *(str(case.get("fastest_opponent", "")) for case in cases)])
    fractions = [
        f"{case['copy_fraction']:.0%}" if "copy_fraction" in case else "–" for case in cases
    ]
    body.append(["copy fraction", *fractions])
    header = [
        "ns per element",
        *(f"{shape_of(case)}, {threads_in_words(case['threads'])}" for case in cases),
    ]
    return Table(
        header, body, f"{caption}, {cases[0]['dtype']}. Medians over rounds; 95 % intervals."
    )


def _ns(case: Row, name: str) -> str | Cell:
    for row in case["rows"]:
        if row["contender"] == name:
            text = number(row["ns_per_element"])
            return Cell(text, "strong") if name == case["candidate"] else text
    reasons = [m["reason"] for m in case["not_measured"] if m["contender"] == name]
    return Cell("–", "muted", "; ".join(reasons))


def _contest_figure(cases: Sequence[Row]) -> Figure:
    largest = max(cases, key=lambda case: (case["elements"], case["threads"]))
    rows = sorted(largest["rows"], key=lambda row: float(row["ns_per_element"]))
    title = f"{shape_of(largest)} {largest['dtype']}, {threads_in_words(largest['threads'])}"

    def draw(canvas: "Canvas") -> None:
        axes = canvas.add_subplot()
        ours = [row["contender"] in _ours(largest) for row in rows]
        axes.barh(
            [f"{row['contender']}{' (ours)' * own}" for row, own in zip(rows, ours, strict=True)],
            [row["ns_per_element"] for row in rows],
            color=[PALETTE[0] if own else PALETTE[6] for own in ours],
            height=0.6,
        )
        for place, row in enumerate(rows):
            text = f" {number(row['ns_per_element'])}"
            axes.text(row["ns_per_element"], place, text, va="center", fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ns per element")
        axes.set_title(title)

    said = ", ".join(f"{row['contender']} {number(row['ns_per_element'])}" for row in rows)
    return Figure(
        "throughput-contest",
        draw,
        f"Time to draw the noise and form x_t, {title}; copies of x₀ for comparison.",
        alt=f"Nanoseconds per element: {said}.",
        size=(7.0, 0.6 + 0.32 * len(rows)),
    )


def _gpu_blocks(visits: Sequence[Record]) -> list[Block]:
    if not visits:
        return [Note(_NO_GPU, "muted")]
    blocks: list[Block] = []
    for record in visits:
        results = record.results
        equal = sum(not (b["different_noise"] or b["different_x_t"]) for b in results["bits"])
        blocks += [
            Paragraph(
                f"**{results['device']}**: the provider was built and called in {results['build_seconds']:.1f} s; "
                f"noise and x_t equal the definition on the CPU bit for bit in {equal} of "
                f"{len(results['bits'])} cases (dtype × shape × place in the stream)."
            ),
            _contest_table(results["contests"], f"Contest on {results['device']}"),
        ]
    return blocks


def _drift_notes(suites: Sequence[Record]) -> list[Block]:
    return [
        Note(
            f"{threads_in_words(r.protocol['threads'])}: {r.results['calibration']['warning']}.",
            "warn",
        )
        for r in suites
        if r.results["calibration"]["warning"]
    ]


def _missing_blocks(missing: Sequence[Row], cases: Sequence[Row]) -> list[Block]:
    lines = {(m["name"], m["outcome"], m["reason"]) for m in missing}
    lines |= {
        (f"{m['contender']} in the contest on {case['device']}", "skipped", m["reason"])
        for case in cases
        for m in case["not_measured"]
    }
    if not lines:
        return []
    body = [
        [name, Cell(outcome, "bad" if outcome == "failed" else "muted"), reason]
        for name, outcome, reason in sorted(lines)
    ]
    return [Fold("What was not measured, and why", [Table(["case", "outcome", "reason"], body)])]


def _interval(ratio: Row | None) -> str | Cell:
    if ratio is None:
        return Cell("–", "muted")
    estimate, ends = interval(ratio["estimate"], ratio["low"], ratio["high"])
    return Cell(f"{estimate} × [{ends}]", "strong")
