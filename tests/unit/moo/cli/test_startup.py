"""Start-up: commands that only read or refuse do not import the training stack."""

import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = ("torch", "lightning", "transformers", "optuna", "sklearn", "opacus", "peft")
SCRIPT = """
import sys
from moo.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as left:
    status = left.code
print("status", status, *(name for name in {heavy!r} if name in sys.modules))
"""


def imported(arguments: list[str], heavy: tuple[str, ...]) -> list[str]:
    """Return the exit status of a command and the heavy modules that it imported."""
    command = [sys.executable, "-c", SCRIPT.format(heavy=heavy), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], "0"),
        (["run", "--help"], "0"),
        (["run", "nosuch"], "2"),
        (["run", "reviews", "--policy", "select_on"], "2"),
        (["front", "--out", "nowhere"], "2"),
        (["data", "list"], "0"),
        (["compliance", "list"], "0"),
        (["mask", "--level", "1", "call 13800138000"], "0"),
    ],
)
def test_commands_that_read_or_refuse_import_no_training_stack(arguments: list[str], status: str) -> None:
    assert imported(arguments, (*TRAINING, "scipy.stats", "pandas")) == [status]


def test_a_saved_result_is_shown_without_the_training_stack(study: tuple[Path, Path]) -> None:
    assert imported(["front", "--out", str(study[1])], (*TRAINING, "scipy.stats", "pandas", "plotly")) == ["0"]


def test_a_ledger_is_shown_without_the_training_stack(study: tuple[Path, Path]) -> None:
    # Composing what the ledger holds takes dp-accounting, which imports scipy.stats itself.
    assert imported(["ledger", "show", str(study[0].with_name("letters.csv"))], (*TRAINING, "pandas")) == ["0"]


def test_the_package_alone_imports_neither_numpy_nor_the_command_line() -> None:
    script = (
        "import sys, moo; print(*(name for name in ('numpy', 'rich', 'moo.cli', 'moo.studies') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
