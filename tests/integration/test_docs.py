"""Paths, names, commands and links of the documentation exist; lines stay within 120 columns."""

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# A changelog names what there was
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
ROOMS = "moo|objectives|models|studies|tests|docs|benchmarks|notebooks"
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PATH = re.compile(rf"((?:{ROOMS})/[\w./*-]*)(?:::([\w.]+))?")
PYTHON = re.compile(rf"(?<![\w/.-])(?:{ROOMS})/[\w/]+\.py\b")
NAME = re.compile(r"(?<![\w/.-])(moo(?:\.[A-Za-z_]\w*)+)(?![\w/])")
RUN = re.compile(r"python -m ((?:moo|benchmarks)(?:\.\w+)+)")
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)|^\[[^\]]+\]: (\S+)", re.M)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def defined(path: Path) -> frozenset[str]:
    """Return the names that a Python file defines: functions, classes, their methods, constants."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for name in _members(node)}
    return frozenset(names)


def _members(node: ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef):
            yield child.name
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            yield child.target.id


def missing_paths(text: str) -> list[str]:
    """Return the paths that do not exist, and the names that their files do not define.

    Folders and names count in backticks, Python files everywhere; `::name` alone is a name in the file before it.
    """
    missing, last = [path for path in PYTHON.findall(text) if not (ROOT / path).exists()], ""
    for span in SPAN.findall(text):
        full = last + span if span.startswith("::") else span
        for path, name in (m.groups() for m in map(PATH.fullmatch, full.split()) if m):
            last = path
            found = list(ROOT.glob(path)) if "*" in path else [ROOT / path]
            if not found or not all(f.exists() for f in found) or (name and name not in defined(found[0])):
                missing.append(span)
    return missing


def imports(name: str) -> bool:
    """Return True if a dotted name is a module, or a name within one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_name_and_command_of_a_page_exists(page: Path) -> None:
    text = text_of(page)
    assert missing_paths(text) == []
    assert [name for name in sorted(set(NAME.findall(text))) if not imports(name)] == []
    assert [name for name in sorted(set(RUN.findall(text))) if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_and_lines_are_no_wider_than_120_columns(page: Path) -> None:
    text = text_of(page)
    targets = [first or second for first, second in LINK.findall(text)]
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []
    assert [i for i, line in enumerate(text.splitlines(), 1) if len(line) > 120] == []


def test_a_planted_error_is_seen() -> None:
    assert missing_paths("see `moo/core/errors.py::InputError` and `moo/core/*.py`") == []
    assert missing_paths("`moo/core/errors.py` holds `::InputError`") == []
    assert missing_paths("moo/core/error.py") == ["moo/core/error.py"]
    assert missing_paths("`moo/cores`") == ["moo/cores"]
    assert missing_paths("`moo/core/errors.py::Missing`, `::Missing`") == ["moo/core/errors.py::Missing", "::Missing"]
    assert imports("moo.core.errors.InputError")
    assert not imports("moo.core.errors.Missing")
    assert not imports("moo.nowhere")
