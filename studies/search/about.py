"""Identity of a study, and the description of how it ran that its result keeps."""

import dataclasses
import platform
import resource
from importlib.metadata import version
from typing import Any

import torch

from moo.core.trial_record import Transformation
from moo.studies.setup.legal_gates import NO_GATE, declared
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.reopen import marks_of

_PACKAGES = ("torch", "optuna", "opacus", "lightning", "transformers")
_THREAT_MODEL = (
    "black-box access to losses; holds all records of the pool and trains reference shadows of the same "
    "configuration on halves of it; queries masked at the trial's level"
)


def study_identity(prepared: PreparedStudy) -> dict[str, Any]:
    """Return the identity of a study: a later call that differs in it is refused."""
    return {
        "spec": prepared.spec.to_json(),
        "policy": vars(prepared.context.policy),
        **marks_of(prepared),
        "weights": prepared.model.base.digest[:16],
        "threads": torch.get_num_threads(),
        "precision": prepared.model.precision,
    }


def study_about(prepared: PreparedStudy, *, sampler: str, seconds: float) -> dict[str, Any]:
    """Return how a study ran: data, policy, engine, machine and versions.

    Args:
        prepared: The study.
        sampler: Name of the sampler.
        seconds: Duration of the search.
    """
    spec, model = prepared.spec, prepared.model
    precision = "bf16-mixed" if model.base.low_precision else "32-true"
    return {
        "data": _about_data(prepared),
        "policy": vars(prepared.context.policy),
        "sampler": sampler,
        "marks": marks_of(prepared),
        "declared": declared(prepared),
        "declare": dict(spec.declare),
        "gates": "judged" if spec.gates else NO_GATE,
        "engine": model.engine,
        "threat_model": _THREAT_MODEL,
        "seconds": seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "machine": {
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "settings": dataclasses.replace(spec.machine, precision=precision).to_json(),
        },
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _about_data(prepared: PreparedStudy) -> dict[str, Any]:
    """Return the description of the data; without exact counts if something leaves.

    Exact counts read private units.
    """
    data, policy = prepared.data, prepared.context.policy
    counts_leave = not policy.answer_noise or policy.name == "internal"
    steps = data.records.transformations
    if not counts_leave:
        steps = tuple(_without_counts(step) for step in steps)
    return {
        "name": data.loaded.name,
        "declaration": data.loaded.declaration,
        "licence": data.loaded.licence,
        "unit": data.unit,
        "records_per_user": data.records_per_user,
        "records": {part: len(records) for part, records in data.parts.items()} if counts_leave else {},
        "dropped": dict(data.preparation.dropped) if counts_leave else {},
        "as_of": prepared.spec.as_of,
        "transformations": [{k: v for k, v in dataclasses.asdict(t).items() if k != "frozen"} for t in steps],
    }


def _without_counts(step: Transformation) -> Transformation:
    detail = "" if step.effect == "changes" else step.detail
    return dataclasses.replace(step, detail=detail, before=0, after=0, changed=0)
