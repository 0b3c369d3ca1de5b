"""moo: choose the privacy of a language model that is fine-tuned on customers' data.

The public names are listed in `__all__`; they are imported on first use, so that `import moo` stays fast and
needs no torch.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ != "moo":
    raise ImportError(f"moo must be imported as 'moo', but got {__name__!r}; import moo instead.")

__version__ = "0.1.0"

# In a source checkout `objectives/`, `models/` and `studies/` stand beside this folder; installed, inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "objectives").is_dir():
    __path__.append(str(_root))

_HOMES = {
    "MooError": "moo.errors",
    "InputError": "moo.errors",
    "Measurement": "moo.records",
    "Span": "moo.records",
    "TrialParams": "moo.records",
    "TrialRecord": "moo.records",
    "Records": "moo.data.schema",
    "load_records": "moo.data",
    "mask": "moo.masking",
    "StudySpec": "moo.studies.base",
    "StudyResult": "moo.studies.result",
    "run_study": "moo.studies.runner",
    "retrain": "moo.studies.retrain",
    "Policy": "moo.privacy.policies",
    "load_result": "moo.studies.result",
}

__all__ = [
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

if TYPE_CHECKING:
    from moo.data import load_records
    from moo.data.schema import Records
    from moo.errors import InputError, MooError
    from moo.masking import mask
    from moo.privacy.policies import Policy
    from moo.records import Measurement, Span, TrialParams, TrialRecord
    from moo.studies.base import StudySpec
    from moo.studies.result import StudyResult, load_result
    from moo.studies.retrain import retrain
    from moo.studies.runner import run_study


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'moo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
