"""moo: choose the privacy of a language model that is fine-tuned on customers' data.

The public names are listed in `__all__`; they are imported on first use, so that `import moo` stays fast and
needs no torch.
"""

from typing import TYPE_CHECKING

from moo.core.lazy_names import lazy_names

__version__ = "0.1.0"

_HOMES = {
    "MooError": "moo.core.errors",
    "InputError": "moo.core.errors",
    "Measurement": "moo.core.measurement",
    "Span": "moo.core.measurement",
    "TrialParams": "moo.core.trial_record",
    "TrialRecord": "moo.core.trial_record",
    "Records": "moo.data.records",
    "load_records": "moo.data.catalogue",
    "mask": "moo.masking",
    "StudySpec": "moo.studies.spec.study",
    "StudyResult": "moo.studies.results.result",
    "run_study": "moo.studies.search.run_study",
    "retrain": "moo.studies.workflows.retrain",
    "Policy": "moo.privacy.release_policy",
    "load_result": "moo.studies.results.result",
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
    from moo.core.errors import InputError, MooError
    from moo.core.measurement import Measurement, Span
    from moo.core.trial_record import TrialParams, TrialRecord
    from moo.data.catalogue import load_records
    from moo.data.records import Records
    from moo.masking import mask
    from moo.privacy.release_policy import Policy
    from moo.studies.results.result import StudyResult, load_result
    from moo.studies.search.run_study import run_study
    from moo.studies.spec.study import StudySpec
    from moo.studies.workflows.retrain import retrain


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
