"""Edits of a syntax tree that make a defect: one operator, number, term, argument or boundary at a time.

    arithmetic   a + b → a − b, a · b → a / b, a ** b → a · b, …      comparison   < → ≤, < → ≥, == → !=, …
    number       n → n + 1, n − 1; c → 2c; True ↔ False              term         a + b → a, a + b → b, a · b → a
    argument     f(a, b) → f(b, a)                                    sign         −a → a, not a → a
    logic        and ↔ or; if c → if not c

Nothing is edited in strings and docstrings, annotations, decorators, `raise` statements (their words are not mathematics), `assert`s, and
`__repr__`. A mutation is known by its place in the walk over the tree and by the text of its statement before and after,
which is how `equivalent.toml` finds it again after the file has moved.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_COMPARISON: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_SYMMETRIC = {"min", "max", "minimum", "maximum", "logaddexp", "promote_types", "isclose"}
"""Functions of two arguments whose order does not matter."""
_TERMS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


@dataclass(frozen=True)
class Mutation:
    """One edit.

    Attributes:
        path: source file, relative to the repository.
        node: index of the edited node in `ast.walk`.
        variant: which of the node's edits.
        kind: arithmetic, comparison, number, term, argument, sign or logic.
        line: line of the statement.
        before: text of the statement (its first line where it has a body).
        after: the same, edited.
    """

    path: str
    node: int
    variant: int
    kind: str
    line: int
    before: str
    after: str

    @property
    def name(self) -> str:
        """`ddpm_ref/process.py:54: before → after`."""
        return f"{self.path}:{self.line}: {self.before} → {self.after}"


def mutations(path: str, source: str) -> list[Mutation]:
    """Every mutation of a file, in the order of the tree."""
    tree = ast.parse(source)
    left_out = _left_out(tree)
    statements = _statements(tree)
    found = []
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in left_out or id(node) not in statements:
            continue
        statement = statements[id(node)]
        before = _text(statement)
        for variant, (kind, edited) in enumerate(_variants(node)):
            after = _text(_replaced(statement, node, edited))
            if after != before:
                found.append(Mutation(path, index, variant, kind, statement.lineno, before, after))
    return found


def apply(mutation: Mutation, source: str) -> str:
    """The source with the edit; comments are lost."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[mutation.node]
    _, edited = list(_variants(node))[mutation.variant]
    return ast.unparse(ast.fix_missing_locations(_replaced(tree, node, edited)))


class _Copy:
    """A copy of a tree in which one node is another; shares nothing with the original but its leaves."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._old:
            return self._new
        fields = {name: self._copied(value) for name, value in ast.iter_fields(node)}
        return ast.copy_location(type(node)(**fields), node)

    def _copied(self, value: object) -> object:
        if isinstance(value, list):
            return [self._copied(item) for item in value]
        return self.visit(value) if isinstance(value, ast.AST) else value


def _replaced(tree: ast.AST, node: ast.AST, edited: ast.AST) -> ast.AST:
    return _Copy(node, edited).visit(tree)


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.BinOp):
        yield from _of_binary(node)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        operator = _ARITHMETIC[type(node.op)]()
        yield (
            "arithmetic",
            ast.copy_location(ast.AugAssign(node.target, operator, node.value), node),
        )
    elif isinstance(node, ast.Compare):
        yield from _of_comparison(node)
    elif isinstance(node, ast.Constant):
        yield from _of_number(node)
    elif isinstance(node, ast.UnaryOp):
        yield "sign", node.operand
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "logic", ast.BoolOp(other, node.values)
    elif isinstance(node, ast.IfExp):
        yield "logic", ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.If):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield "logic", ast.copy_location(ast.If(negated, node.body, node.orelse), node)
    elif isinstance(node, ast.Call) and _swappable(node):
        first, second, *rest = node.args
        yield "argument", ast.Call(node.func, [second, first, *rest], node.keywords)


def _swappable(node: ast.Call) -> bool:
    name = ast.unparse(node.func).rpartition(".")[2]
    starred = any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    return len(node.args) >= 2 and not starred and name not in _SYMMETRIC


def _of_binary(node: ast.BinOp) -> Iterator[tuple[str, ast.AST]]:
    if type(node.op) in _ARITHMETIC:
        yield "arithmetic", ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    if isinstance(node.op, _TERMS):
        yield "term", node.left
    if isinstance(node.op, ast.Add | ast.Mult):
        yield "term", node.right


def _of_comparison(node: ast.Compare) -> Iterator[tuple[str, ast.AST]]:
    for position, operator in enumerate(node.ops):
        for other in _COMPARISON.get(type(operator), ()):
            changed = [*node.ops[:position], other(), *node.ops[position + 1 :]]
            yield "comparison", ast.Compare(node.left, changed, node.comparators)


def _of_number(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "number", ast.Constant(not value)
    elif isinstance(value, int):
        yield "number", ast.Constant(value + 1)
        yield "number", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "number", ast.Constant(2 * value if value else 1.0)


def _left_out(tree: ast.Module) -> set[int]:
    """Ids of nodes that are not mathematics."""
    roots: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            roots.append(node)
        elif isinstance(node, ast.FunctionDef):
            roots += [*node.decorator_list, *([node.returns] if node.returns else [])]
            roots += [node] if node.name == "__repr__" else []
        elif isinstance(node, ast.ClassDef):
            roots += [*node.decorator_list, *node.bases]
        elif isinstance(node, ast.arg) and node.annotation is not None:
            roots.append(node.annotation)
        elif isinstance(node, ast.AnnAssign):
            alias = isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
            roots.append(node if alias else node.annotation)
        elif (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__") or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            roots.append(node)
    return {id(inner) for root in roots for inner in ast.walk(root)}


def _statements(tree: ast.Module) -> dict[int, ast.stmt]:
    """The innermost statement of every node, by the node's id."""
    owner: dict[int, ast.stmt] = {}

    def visit(node: ast.AST, statement: ast.stmt | None) -> None:
        statement = node if isinstance(node, ast.stmt) else statement
        if statement is not None:
            owner[id(node)] = statement
        for child in ast.iter_child_nodes(node):
            visit(child, statement)

    visit(tree, None)
    return owner


def _text(node: ast.AST) -> str:
    """The statement on one line; a compound one without its body."""
    text = ast.unparse(ast.fix_missing_locations(node))
    if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.FunctionDef | ast.ClassDef):
        decorators = len(getattr(node, "decorator_list", ()))
        return text.splitlines()[decorators]
    return " ".join(text.split())
