"""DP claim of a trial, decided in one place and from events alone."""

from collections.abc import Collection, Sequence

from moo.core.messages import Message, joined
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
        Message("the step '{step}' read other units' records without a ledger event", step=t.name)
        for t in transformations
        if t.scope == "dataset" and t.effect == "changes" and not t.frozen and t.name not in ledger_covered
    ]
    return withdrawn(joined("; ", reasons)) if reasons else HOLDS


def withdrawn(reasons: str) -> Message:
    """Return the claim of a training whose guarantee does not hold."""
    return Message("withdrawn because {reasons}", reasons=reasons)


def reasons_of(claim: str) -> str:
    """Return why a claim is withdrawn; the claim itself if it holds."""
    if isinstance(claim, Message) and "reasons" in claim.values:
        reasons: str = claim.values["reasons"]
        return reasons
    return claim.removeprefix("withdrawn because ")


def _run_reasons(run: TrainingRun, n_units: int) -> list[tuple[bool, str]]:
    if not run.private:
        return [(True, Message("it was trained without noise"))]
    bare = Message("{steps} steps ran without noise", steps=run.zero_noise_steps)
    if run.bare_tensors:
        bare = Message(
            "{steps} steps ran without noise or with less than claimed on {tensors}",
            steps=run.zero_noise_steps,
            tensors=run.bare_tensors,
        )
    return [
        (
            run.sampler != "poisson",
            Message("batches were {sampler}, not drawn by Poisson sampling", sampler=run.sampler),
        ),
        (run.normaliser != "public", Message("the gradient was divided by a private number")),
        (
            not 0 < run.delta < 1 / n_units,
            Message("delta={delta:g} is not below 1/{n_units}", delta=run.delta, n_units=n_units),
        ),
        (run.zero_noise_steps > 0, bare),
    ]
