"""The house's order: which room may import which, and how long a file may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from medusa_ext.checkpoints.families import FAMILIES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "medusa_ext"
CSRC = ROOT / "csrc"

# A room may import those before it in the list; the free ones belong to all.
ROOMS = ("text", "checkpoints", "drafting", "engine", "ops", "api", "training", "cli")
FREE = {"_C", "_build", "__init__", "extras", "files"}
# core <- cpu, cuda <- model <- engine <- bindings; ops beside the engine.
INCLUDES = {
    "core": set(),
    "cpu": {"core"},
    "cuda": {"core"},
    "model": {"core"},
    "engine": {"core", "model"},
    "ops": {"core", "cpu", "cuda"},
    "bindings": {"core", "cpu", "cuda", "model", "engine"},
}
INCLUDE = re.compile(r'#include "(\w+)/')
HARD_LIMIT, SOFT_LIMIT = 400, 300


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, "engine.model" or "api"."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)] = path
    return found


def type_only(tree: ast.Module) -> set[int]:
    """The lines of a module's imports for type checkers."""
    blocks = [
        n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]
    return {
        child.lineno for block in blocks for child in ast.walk(block) if hasattr(child, "lineno")
    }


def imports(name: str, path: Path, known: dict[str, Path], *, types: bool) -> Iterator[str]:
    """The package's modules that one imports, at any depth of its code."""
    tree = ast.parse(path.read_text())
    skipped = set() if types else type_only(tree)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or node.lineno in skipped:
            continue
        base = package[: len(package) - node.level + 1]
        target = ".".join([*base, *(node.module.split(".") if node.module else [])])
        for alias in node.names:
            full = f"{target}.{alias.name}".lstrip(".")
            yield full if full in known or alias.name == "_C" else target or "__init__"


def test_rooms_are_in_order() -> None:
    """No arrow upwards between rooms, lazy and type-only imports counted."""
    known = modules()
    upwards = []
    for name, path in known.items():
        room = name.split(".")[0]
        if room not in ROOMS:
            continue
        for target in imports(name, path, known, types=True):
            other = target.split(".")[0]
            if other != room and other not in FREE and ROOMS.index(other) > ROOMS.index(room):
                upwards.append(f"{name} imports {target}")
    assert not upwards
    tops = {name.split(".")[0] for name in known}
    assert tops <= {*ROOMS, *FREE, "__main__"}


def test_modules_do_not_import_in_circles() -> None:
    """At run time, lazy imports counted; a type checker's imports make no circle."""
    known = modules()
    graph = {
        name: {target for target in imports(name, path, known, types=False) if target in known}
        for name, path in known.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def test_includes_go_one_way() -> None:
    wrong = []
    for path in product_files(CSRC, ".h", ".cpp", ".cu", ".cuh"):
        room = path.relative_to(CSRC).parts[0]
        for target in INCLUDE.findall(path.read_text()):
            if target != room and target in INCLUDES and target not in INCLUDES[room]:
                wrong.append(f"{path.relative_to(CSRC)} includes {target}/")
    assert not wrong


def test_files_are_short() -> None:
    """One file in a hundred may be longer than 300 lines, and none than 400."""
    files = product_files(CSRC, ".h", ".cpp", ".cu", ".cuh") + product_files(PACKAGE, ".py")
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    long = [str(path.relative_to(ROOT)) for path, lines in lengths.items() if lines > SOFT_LIMIT]
    assert len(long) <= len(files) // 100, long
    assert max(lengths.values()) <= HARD_LIMIT


def test_families_are_named_in_their_own_files_only() -> None:
    """What the rest of the code does for a family, it does for what the record says. Benchmarks
    name published models and their peers."""
    name = re.compile(rf"\b({'|'.join(FAMILIES)})\b(?!\.cpp|-gguf)", re.IGNORECASE)
    files = product_files(CSRC, ".h", ".cpp", ".cu", ".cuh") + product_files(PACKAGE, ".py")
    own = {PACKAGE / place for place in ("checkpoints/families", "checkpoints/tokenizer", "bench")}
    found = [
        f"{path.relative_to(ROOT)}: {name.findall(path.read_text())}"
        for path in files
        if not own & set(path.parents) and name.search(path.read_text())
    ]
    assert not found


def product_files(folder: Path, *suffixes: str) -> list[Path]:
    """Files of these suffixes below a folder, without tests and benchmarks."""
    files = [path for path in folder.rglob("*") if path.suffix in suffixes]
    return [p for p in files if not {"tests", "benchmarks"} & set(p.relative_to(folder).parts[:1])]
