"""Imports run one way, heavy libraries wait until they are needed, and the commands answer at once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_torch

ROOT = Path(__file__).parents[1]
ORDER = (
    "validation",
    "schedule",
    "gaussian",
    "noise",
    "process",
    "kernels",
    "parameterization",
    "objective",
    "reverse",
    "terms",
    "elbo",
    "oracle",
    "estimator",
    "data",
    "learned",
    "times",
    "network",
    "optimization",
    "toml",
    "config",
    "training_state",
    "checkpoint",
    "team",
    "images",
    "batches",
    "training_loss",
    "trainer",
    "sampler",
    "conformance",
)
"""File order of `ddpm_ref` = import order: each imports only from those before it."""

LATE = {"scipy", "sklearn", "matplotlib", "torchvision", "torchmetrics", "jinja2", "PIL"}
"""Imported inside the functions that need them: `import ddpm_ref` costs little beyond torch."""


def sources(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, *, top_level_only: bool) -> set[str]:
    """Full names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    nodes = _top_level(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path}: relative imports hide the direction; write the full name"
            )
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _top_level(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run at import, those under `if TYPE_CHECKING` excepted."""
    found: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found.append(node)
    return found


def part(name: str) -> str | None:
    """The entry of ORDER to which a module of ddpm_ref belongs."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[0] == "ddpm_ref" else None


def test_order_lists_what_is_there() -> None:
    there = {p.stem for p in (ROOT / "ddpm_ref").glob("*.py") if p.stem != "__init__"}
    there |= {p.parent.name for p in (ROOT / "ddpm_ref").glob("*/__init__.py")}
    assert there == set(ORDER)


@pytest.mark.parametrize(
    "path", [p for p in sources("ddpm_ref") if part(module_of(p))], ids=module_of
)
def test_ddpm_ref_imports_only_what_comes_before(path: Path) -> None:
    here = part(module_of(path))
    assert here is not None
    for name in imported(path, top_level_only=False):
        assert name.split(".")[0] not in {"bench", "tests"}, f"{path} imports {name}"
        other = part(name)
        if other in ORDER and other != here:
            assert ORDER.index(other) < ORDER.index(here), f"{module_of(path)} imports {name}"


def reach(name: str, seen: set[str]) -> set[str]:
    """Every part of ddpm_ref that a part imports, directly or not."""
    for path in sources("ddpm_ref"):
        if part(module_of(path)) == name:
            for other in {part(n) for n in imported(path, top_level_only=False)} - {None, name}:
                if other in ORDER and other not in seen:
                    seen.add(str(other))
                    reach(str(other), seen)
    return seen


def test_what_checks_each_other_shares_no_formula() -> None:
    assert "objective" not in reach("elbo", set())
    assert "elbo" not in reach("objective", set())
    assert {"elbo", "kernels"} & reach("oracle", set()) == set()
    assert "kernels" not in reach("terms", set())


ROOMS = ("terminal", "record", "data", "metrics", "measure", "job", "commands")
"""The rooms of `bench` in the order of imports; `report` stands beside `measure` and sees records only."""


def allowed(room: str) -> set[str]:
    """The rooms that a module in `room` may import."""
    if room == "report":
        return {"report", "record"}
    before = {*ROOMS[: ROOMS.index(room) + 1]}
    return before | {"report"} if room == "commands" else before


def room(name: str) -> str | None:
    """The room of `bench` that a module lies in."""
    pieces = name.split(".")
    return (
        pieces[1] if pieces[0] == "bench" and len(pieces) > 1 and pieces[1] != "__main__" else None
    )


def test_bench_has_eight_rooms_and_two_files() -> None:
    there = {p.name for p in (ROOT / "bench").iterdir() if p.name != "__pycache__"}
    assert there == {*ROOMS, "report", "__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", [p for p in sources("bench") if room(module_of(p))], ids=module_of)
def test_imports_between_rooms_run_one_way(path: Path) -> None:
    here = room(module_of(path))
    assert here is not None
    for name in imported(path, top_level_only=False):
        there = room(name)
        assert there is None or there in allowed(here), f"{module_of(path)} imports {name}"
        assert not name.startswith("tests"), f"{module_of(path)} imports {name}"
        assert here != "report" or not name.startswith("ddpm_ref"), f"{path} imports {name}"


@pytest.mark.parametrize("path", sources("ddpm_ref"), ids=module_of)
def test_heavy_libraries_are_imported_late(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path, top_level_only=True)}
    assert not roots & LATE


def loaded_after(statement: str) -> set[str]:
    """Root names of the modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_import_of_the_reference_adds_nothing_heavy_to_torch() -> None:
    added = loaded_after("import ddpm_ref") - loaded_after("import torch")
    assert not added & (LATE | {"bench", "pytest"})


EXPRESSIONS = (
    "len(ddpm_ref.conformance.laws()) == len(ddpm_ref.conformance.lawbook.LAWS)",
    "len(ddpm_ref.conformance.mutants.MUTANTS) >= 60",
    "ddpm_ref.conformance.Reference is ddpm_ref.conformance.reference.Reference",
    "callable(__import__('ddpm_ref.conformance', fromlist=['laws']).laws)",
    "'diffusers' in ddpm_ref.conformance.adapters.PEERS",
    "not hasattr(ddpm_ref, 'conformity') and not hasattr(ddpm_ref.conformance, 'lwas')",
)
_EACH_IN_A_FORK = """
import os, sys, torch
for expression in sys.argv[1:]:
    child = os.fork()
    if not child:
        import ddpm_ref
        good = eval(expression)
        os._exit(0 if good else 1)
    if os.waitpid(child, 0)[1]:
        print(expression)
"""


def failing(*expressions: str) -> str:
    """Those that are false or raise, each in an interpreter that has imported torch, which takes seconds, and nothing of this project."""
    result = subprocess.run(
        [sys.executable, "-c", _EACH_IN_A_FORK, *expressions],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


def test_the_laws_are_found_by_attribute_from_a_bare_import() -> None:
    assert failing(*EXPRESSIONS) == ""


def test_any_module_of_the_agreement_layer_can_be_imported_first() -> None:
    """The laws hold cases of the agreement layer, whose truth is the laws': the order of imports must not matter."""
    paths = sorted((ROOT / "ddpm_ref/conformance/agreement").glob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    assert failing(*(f"__import__({name.removesuffix('.__init__')!r})" for name in names)) == ""


def test_the_laws_wait_until_they_are_asked_for() -> None:
    code = "import sys, ddpm_ref; assert not any('conformance' in name for name in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from bench.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules, 'heavy import'"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "run" in result.stdout
