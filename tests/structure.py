"""The structure of the source, counted: imports against the map, cycles, long files and functions.

``python tests/structure.py`` prints the counts; ``test_structure.py`` holds them to their limits. Imports are read from
the source, those inside functions included, since a lazy import is an arrow like any other.
"""

import ast
import functools
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "ecom_rag"
SOURCE = Path(__file__).parent.parent / "src" / PACKAGE


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the package."""

    name: str  # below the package, e.g. ``retrieval.dense``; a package is its ``__init__``
    path: Path
    tree: ast.Module
    lines: int


@dataclass(frozen=True, slots=True)
class Function:
    """One function or method, measured without its docstring."""

    place: str
    lines: int


@functools.cache
def modules(source: Path = SOURCE) -> dict[str, Module]:
    """All modules of the package by name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or PACKAGE
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, ast.parse(text), text.count("\n"))
    return found


def imports(module: Module, known: dict[str, Module]) -> set[str]:
    """The modules of the package that a module imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {own for alias in node.names if (own := _known(alias.name, known))}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                own = _known(f"{node.module}.{alias.name}", known) or _known(node.module, known)
                if own:
                    found.add(own)
    return found - {module.name}


@functools.cache
def arrows() -> dict[str, set[str]]:
    """Of each module the modules that it imports; imports for the type checker alone count too."""
    known = modules()
    return {name: imports(module, known) for name, module in known.items()}


def layer(name: str) -> str:
    """The part of the map that a module belongs to: its first folder, or the file itself."""
    return name.partition(".")[0]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for below in sorted(graph.get(node, ())):
            if below not in index:
                visit(below)
                low[node] = min(low[node], low[below])
            elif below in stack:
                low[node] = min(low[node], index[below])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def functions() -> list[Function]:
    """All functions of the package, the longest first."""
    found = [
        Function(f"{module.name}:{node.name}", _body_lines(node))
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(found, key=lambda function: -function.lines)


def skips() -> int:
    """How often the formatter is switched off."""
    return sum(module.path.read_text(encoding="utf-8").count("# fmt: skip") for module in modules().values())


def layer_arrows() -> dict[str, dict[str, list[str]]]:
    """Arrows between layers, with an example of each."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, below in arrows().items():
        for other in below:
            if layer(name) != layer(other):
                found[layer(name)][layer(other)].append(f"{name} -> {other}")
    return found


def _known(name: str, known: dict[str, Module]) -> str | None:
    if name == PACKAGE:
        return PACKAGE
    own = name.removeprefix(f"{PACKAGE}.")
    return own if own != name and own in known else None


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the ``def`` to the end, decorators and docstring left out."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def _report() -> Iterator[str]:
    found = modules()
    yield f"{len(found)} files, {sum(module.lines for module in found.values())} lines"
    long_files = sorted((m.lines, m.name) for m in found.values() if m.lines > 300)
    shown = ", ".join(f"{name} {lines}" for lines, name in reversed(long_files))
    yield f"{len(long_files)} files over 300 lines: {shown}"
    long_functions = [function for function in functions() if function.lines > 40]
    yield f"{len(long_functions)} functions over 40 lines:"
    yield from (f"  {function.lines:4} {function.place}" for function in long_functions)
    yield f"{skips()} times # fmt: skip"
    for group in cycles(arrows()):
        yield f"cycle: {', '.join(group)}"
    for name, below in sorted(layer_arrows().items()):
        yield f"{name} -> {', '.join(sorted(below))}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in _report())
