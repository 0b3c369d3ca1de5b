"""The layout that is promised.

One import package, its rooms beside it, and a public surface that changes on purpose.
"""

import importlib
import os
import pkgutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import moo

ROOT = Path(__file__).resolve().parents[2]
MOST_FILES = 15
ROOMS = {"moo.objectives": "objectives", "moo.models": "models", "moo.studies": "studies"}

PUBLIC = [
    "InputError",
    "Measurement",
    "MooError",
    "Policy",
    "Records",
    "Span",
    "StudyResult",
    "StudySpec",
    "TrialParams",
    "TrialRecord",
    "__version__",
    "load_records",
    "load_result",
    "mask",
    "retrain",
    "run_study",
]


def packages_in_the_tree() -> set[str]:
    found = {"moo"}
    for name, folder in {"moo": "moo", **ROOMS}.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            if not (name == "moo" and inner and inner[0] in ROOMS.values()):
                found.add(".".join((name, *inner)))
    return found


def test_the_packages_listed_are_those_in_the_tree() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages_in_the_tree()
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("room", ["moo", *ROOMS.values()])
def test_no_folder_of_code_holds_too_many_files(room: str) -> None:
    walked = {Path(folder): len(files) for folder, _, files in os.walk(ROOT / room)}
    counts = {str(at.relative_to(ROOT)): n for at, n in walked.items() if at.name != "__pycache__"}
    assert counts[room] > 0
    assert {folder: n for folder, n in counts.items() if n > MOST_FILES} == {}


def test_every_module_imports() -> None:
    names = [
        f"{package}.{module.name}"
        for package in sorted(packages_in_the_tree())
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__[:1])
        if not module.ispkg
    ]
    assert "moo.studies.search.run_study" in names
    assert "moo.core.errors" in names
    for name in names:
        importlib.import_module(name)


@pytest.mark.parametrize("folder", ["moo", "tests", "docs", "benchmarks"])
def test_no_folder_beside_the_package_is_imported_as_a_part_of_it(folder: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"moo.{folder}")


def test_the_public_surface_is_this_and_every_name_is_there() -> None:
    assert sorted(moo.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(moo, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = moo.nothing


def test_importing_moo_is_light() -> None:
    code = "import sys, moo; print('torch' in sys.modules, 'optuna' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False False\n"
    )


def test_every_pinned_version_is_one_line_and_every_dependency_is_pinned() -> None:
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all(line.count("==") == 1 for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert _names(project["dependencies"]) | _names(extras["dev"]) <= pinned


def test_what_is_optional_for_users_is_there_for_the_tests() -> None:
    """Else what tests skip without it would never run."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, wanted in extras.items():
        assert _names(wanted) <= _names(extras["dev"]), name


def _names(wanted: list[str]) -> set[str]:
    return {w.split(">")[0].split("[")[0].lower() for w in wanted}


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_rooms(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = set(wheel.namelist())
    tracked = subprocess.run(["git", "ls-files", "moo", *ROOMS.values()], cwd=ROOT, capture_output=True, text=True)
    files = tracked.stdout.split()
    assert len(files) > 300
    assert {f if f.startswith("moo/") else f"moo/{f}" for f in files} <= packed
