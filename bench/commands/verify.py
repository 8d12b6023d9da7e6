"""`ddpm-bench verify`: the laws on this implementation, on an installed library, or on your own adapter.

Exit status: 0 all hold, 1 some law failed (whatever its class), 2 wrong usage, among it an adapter that does not keep to the interface.
"""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from bench.terminal.files import write_text
from bench.terminal.usage import UsageError, at_least, in_words, writable_file

if TYPE_CHECKING:
    from bench.measure.laws.examine import Examined, Subject
    from bench.record import Json, Record
    from ddpm_ref.conformance.lawbook import Law

HELP = "run the laws on this implementation, a library or your own adapter"

EVERYTHING, FID = "all", "fid"
SCHEMA = "ddpm-bench.verify/1"

_EPILOG = """libraries: diffusers, denoising-diffusion-pytorch, azula, smalldiffusion, flow-matching, article; of the FID torchmetrics,
pytorch-fid, clean-fid, torch-fidelity, torcheval. all = ours and every library that is installed; fid = ours and those of the
FID, under the laws on it. A failure is classified: bug (fails in float64), precision (fails only below, or by
rounding), convention (holds under a meaning that the adapter declares for this law), adapter (it is the adapter that is wrong:
its signatures, the types of its results, settings).

  ddpm-bench verify                                     this implementation
  ddpm-bench verify --law I8 --json laws.json           one invariant
  ddpm-bench verify --against diffusers                 a library, with the options that behave differently
  ddpm-bench verify --against fid                       the FID of five libraries: where they agree
  ddpm-bench verify --against improved-diffusion:PATH   a checkout; also guided-diffusion, DiT, ddpm-torch, pytorch-ddpm,
                                                        minDiffusion, latent-diffusion, score_sde_pytorch, edm
  ddpm-bench verify --init my_adapter.py                a commented adapter to fill in, then
  ddpm-bench verify --against my_adapter.py:MyDiffusion  your own code"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the subcommand."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--against",
        action="append",
        metavar="NAME|FILE.py:CLASS|REPOSITORY:PATH",
        help="a library, a repository's checkout, `all`, `fid`, or a class in a file; may be given several times (default: this implementation)",
    )
    parser.add_argument(
        "--law",
        action="append",
        default=[],
        metavar="ID",
        help="only this law (I8-tails) or invariant (I8); may be given several times",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the laws (all, or those of --law), and stop"
    )
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="also sweep what the default profile samples: every option at every length and shape (minutes)",
    )
    parser.add_argument(
        "--limit",
        type=at_least(1),
        default=300,
        metavar="SECONDS",
        help="of one law, after which it counts as failed and the next one runs (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write everything that was found as strict JSON; - for standard output (schema: ddpm-bench.verify/1)",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="every law in every dtype, and each failure in full (default: one screen)",
    )
    parser.add_argument("--out", metavar="DIR", help="save a record there, for `ddpm-bench report`")
    parser.add_argument(
        "--init", metavar="FILE.py", help="write a commented adapter to fill in, and stop"
    )


def run(arguments: argparse.Namespace) -> int:
    """Examine everything that was named; 1 where a law fails on any of it."""
    if arguments.init is not None:
        return _init(arguments.init)
    names = arguments.against or ["ddpm_ref"]
    laws = _laws(arguments.law or (["I23"] if names == [FID] else []))
    if arguments.list:
        return _list(laws)
    from bench.measure.laws.examine import record, results
    from bench.record import save
    from bench.terminal.usage import writable_directory

    if arguments.json not in (None, "-"):
        writable_file(arguments.json, "--json")
    directory = None if arguments.out is None else writable_directory(arguments.out)
    # With `--json -` only the JSON goes to standard output, whatever an adapter prints.
    with redirect_stdout(sys.stderr if arguments.json == "-" else sys.stdout):
        examined = _examined(
            names, laws, arguments.limit, tables=arguments.verbose, thorough=arguments.thorough
        )
        everything = results(examined, laws)
        print(_full(everything) if arguments.verbose else _brief(everything))
        found = record(examined, laws, thorough=arguments.thorough)
        if directory is not None:
            print(f"record {save(found, directory).name} in {arguments.out}")
    if arguments.json is not None:
        _write_json(found, everything, arguments.json)
    failed = [outcome for one in examined for outcome in one.failed]
    if any(outcome.classification == "adapter" for outcome in failed):
        return 2
    return 1 if failed else 0


def _list(laws: "tuple[Law, ...]") -> int:
    """Id, title and statement of each law."""
    for law in laws:
        print(f"{law.id:<24s}{law.title}")
        print(textwrap.indent(textwrap.fill(law.statement, 106, break_on_hyphens=False), "    "))
    return 0


def _examined(
    names: Sequence[str], laws: "tuple[Law, ...]", limit: float, *, tables: bool, thorough: bool
) -> "list[Examined]":
    """Everything that was named; with `tables` each has its own as soon as it is there."""
    from bench.measure.laws.examine import results
    from bench.report.laws.text import table

    examined: list[Examined] = []
    for subject in _subjects(names):
        examined.append(_examine(subject, laws, limit, thorough))
        if tables:
            print(table(results(examined[-1:], laws)), flush=True)
    return examined


def _full(results: "Mapping[str, Json]") -> str:
    """Every failure in words, and of several implementations an overview."""
    from bench.report.laws.text import failures, overview

    several = len(results["implementations"]) > 1
    return failures(results) + overview(results) * several


def _brief(results: "Mapping[str, Json]") -> str:
    """All of it on the screen that there is, of 40 lines at most."""
    from bench.report.laws.screen import Screen, screen

    columns, lines = shutil.get_terminal_size((110, 37))
    return screen(results, Screen(min(lines - 3, 37), min(max(columns, 72), 110)))


def _init(name: str) -> int:
    from ddpm_ref.conformance.adapters.from_file import write_template

    if Path(name).suffix != ".py":
        raise UsageError(
            f"--init {name}: an adapter is a Python file: give a name that ends in .py"
        )
    try:
        write_template(Path(name))
    except FileExistsError:
        raise UsageError(
            f"--init {name}: there is such a file already, and it is not overwritten; choose another name"
        ) from None
    except OSError as error:
        raise UsageError(
            f"--init {name}: cannot be written: {error.strerror}; choose another place"
        ) from error
    print(f"wrote {name}; fill it in, then: ddpm-bench verify --against {name}:MyDiffusion")
    return 0


def _laws(topics: Sequence[str]) -> "tuple[Law, ...]":
    from bench.measure.laws.examine import known_laws

    try:
        return known_laws(topics)
    except ValueError as error:
        raise UsageError(f"--law: {error}") from error


def _subjects(names: Sequence[str]) -> "list[Subject]":
    """What is to be examined, in order; each once."""
    from bench.measure.laws.examine import OURS, subjects
    from ddpm_ref.conformance.adapters import FID as FID_LIBRARIES
    from ddpm_ref.conformance.adapters import PEERS

    if EVERYTHING in names:
        return _installed(PEERS)
    found: list[Subject] = []
    among_fid = {OURS, *FID_LIBRARIES} if FID in names else set()
    for name in dict.fromkeys(name for name in names if name not in among_fid):
        if name == FID:
            found += _installed(FID_LIBRARIES)
            continue
        try:
            found += subjects(name)
        except ModuleNotFoundError as error:
            raise _missing(name, error) from error
        except ValueError as error:
            hint = "" if name != OURS else "; leave --against out for this implementation"
            raise UsageError(f"--against {name}: {error}{hint}") from error
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # the user's own file: its message is what helps
            raise UsageError(
                f"--against {name}: the adapter cannot be built: {in_words(failure)}"
            ) from failure
    return found


def _installed(names: Iterable[str]) -> "list[Subject]":
    """This implementation and those of the libraries that are installed; what is missing is said."""
    from bench.measure.laws.examine import OURS, subjects
    from ddpm_ref.conformance.adapters import PEERS

    found = list(subjects(OURS))
    for name in names:
        try:
            found += subjects(name)
        except ModuleNotFoundError as error:
            print(
                f"{name}: not installed ({error.name} is missing): pip install {PEERS[name].distribution}"
            )
    return found


def _missing(name: str, error: ModuleNotFoundError) -> UsageError:
    from ddpm_ref.conformance.adapters import PEERS

    if name in PEERS:
        peer = PEERS[name]
        return UsageError(
            f"--against {name}: {error.name} is not installed; remedy: python -m pip install {peer.distribution}"
        )
    return UsageError(
        f"--against {name}: the file imports {error.name!r}, which is not installed here"
    )


def _examine(
    subject: "Subject", laws: "tuple[Law, ...]", limit: float, thorough: bool
) -> "Examined":
    from bench.measure.laws.examine import examine
    from bench.terminal.progress import meter

    with meter(total=len(laws), label=subject.implementation.name) as shown:
        return examine(
            subject,
            laws,
            lambda law: shown.advance(note=law.id),
            limit=limit,
            thorough=thorough,
        )


def _write_json(found: "Record", everything: "Mapping[str, Json]", name: str) -> None:
    """Every row with every field, which a record keeps for failures only, and of a failure every place."""
    from bench.measure.laws.examine import NO_FAILURE

    content = {
        "schema": SCHEMA,
        "created": found.created,
        **everything,
        "laws": [NO_FAILURE | row for row in everything["laws"]],
        "environment": found.environment,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if name == "-":
        sys.stdout.write(text)
        return
    write_text(name, text)
    print(f"everything in {name}")
