"""DP claim of a trial, decided in one place and from events alone."""

from collections.abc import Collection, Sequence

from moo.core.trial_record import Transformation
from moo.privacy.events import TrainingRun

HOLDS = "holds"


def claim(
    run: TrainingRun,
    transformations: Sequence[Transformation] = (),
    *,
    ledger_covered: Collection[str] = (),
    n_units: int = 0,
) -> str:
    """Return "holds", or "withdrawn because ..." with every reason.

    Args:
        run: What the training was.
        transformations: How the data were prepared.
        ledger_covered: Names of dataset-scoped transformations that have a ledger event of their
            own.
        n_units: Units of the whole data set, which delta must fit; 0 takes those of the run.
    """
    reasons = [text for broken, text in _run_reasons(run, max(n_units, run.n_units)) if broken]
    reasons += [
        f"the step {t.name!r} read other units' records without a ledger event"
        for t in transformations
        if t.scope == "dataset" and t.effect == "changes" and not t.frozen and t.name not in ledger_covered
    ]
    return HOLDS if not reasons else "withdrawn because " + "; ".join(reasons)


def _run_reasons(run: TrainingRun, n_units: int) -> list[tuple[bool, str]]:
    if not run.private:
        return [(True, "it was trained without noise")]
    bare = f"{run.zero_noise_steps} steps ran without noise"
    if run.bare_tensors:
        bare = f"{run.zero_noise_steps} steps ran without noise or with less than claimed on {run.bare_tensors}"
    return [
        (run.sampler != "poisson", f"batches were {run.sampler}, not drawn by Poisson sampling"),
        (run.normaliser != "public", "the gradient was divided by a private number"),
        (not 0 < run.delta < 1 / n_units, f"delta={run.delta:g} is not below 1/{n_units}"),
        (run.zero_noise_steps > 0, bare),
    ]
