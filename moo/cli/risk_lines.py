"""Lines and tables about risk: the front trained anew, the confirmation, what answers tell of an attribute."""

import dataclasses
import math

from rich.console import Console
from rich.table import Table

from moo.cli.console import heading, say
from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, PENALTY, RISK, STATUS_QUO_TRIAL
from moo.report.sections.attribute import attribute_trials, by_attribute
from moo.studies.results.recommendation import Recommendation
from moo.studies.results.result import StudyResult


def print_refined(console: Console, result: StudyResult) -> None:
    """Print the front's points as the search measured them, and over both of their trainings."""
    told = {t.number: t for t in result.trials}
    table = Table(
        "trial",
        *(f"{name}: {when}" for name in ("accuracy", "risk") for when in ("search", "both")),
        "limits",
        box=None,
        pad_edge=False,
    )
    for record in result.refined:
        cells = [plus_minus(t.objectives[name]) for name in (ACCURACY, RISK) for t in (told[record.number], record)]
        verdict = "[green]held[/]" if record.feasible else f"[yellow]broken: {', '.join(record.blocking)}[/]"
        table.add_row(str(record.number), *cells, verdict)
    heading(console, "The front trained anew, more shadows each")
    console.print(table)


def print_recommendation(console: Console, result: StudyResult) -> None:
    """Print the point to take, how sure it is, what it costs, and the alternatives likewise."""
    choice = result.recommend()
    if choice.trial is None:
        say(console, f"[bold]No recommendation[/]: {choice.reason}.")
    else:
        spent = choice.trial.extras["epsilon_spent"].value
        epsilon = "none" if math.isinf(spent) else f"{spent:.2f}" if spent < 10 else f"{spent:.1f}"
        called = "the winner" if result.alone else f"trial {choice.trial.number}"
        name = f", {choice.name}" if choice.name else ""
        about = f"epsilon {epsilon}, claim {choice.trial.claim}"
        say(console, f"[bold]Recommended: {called}{name}[/] ({about}); {choice.reason}.")
        _print_chance(console, result, choice)
    for other in result.alternatives():
        assert other.trial is not None
        say(console, f"Or trial {other.trial.number}, {other.name}: {other.reason}.")
        _print_chance(console, result, other)
    if choice.trial is not None:
        print_confirmation(console, result)


def _print_chance(console: Console, result: StudyResult, choice: Recommendation) -> None:
    assert choice.trial is not None
    if math.isnan(choice.p_feasible):
        return
    upper, limit = choice.trial.objectives[RISK].upper, result.limits["max_risk"]
    say(
        console,
        f"  Its limits hold with probability {choice.p_feasible:.2f} (risk at most {upper:.3f}, limit {limit:g})"
        + (f"; {choice.trade}." if choice.trade else "."),
    )


def print_confirmation(console: Console, result: StudyResult) -> None:
    """The number that the recommendation stands on, or that there is none yet."""
    if result.confirmed is None:
        if not result.refined and result.about.get("policy", {}).get("name") in ("internal", "proxy_then_retrain"):
            say(
                console,
                "Not confirmed: the best of many noisy numbers is too good. `moo confirm` trains the front anew and the "
                "recommendation on a fresh split.",
            )
        return
    record = result.confirmed
    verdict = (
        "[green]Confirmed[/]"
        if record.feasible
        else f"[bold red]Not confirmed[/], it breaks {', '.join(record.blocking)}"
    )
    if by_attribute(record):
        say(console, f"Its risk is the leakage of {result.spec['attribute']}, above the membership advantage.")
    p = record.extras.get("permutation_p")
    chance = "" if p is None else f" (permutation p {p.value:.3f})"
    say(
        console,
        f"{verdict} on a fresh split: accuracy {plus_minus(record.objectives[ACCURACY])}, "
        f"membership risk {plus_minus(record.objectives[RISK])}{chance}, penalty {plus_minus(record.objectives[PENALTY])}; "
        f"most exposed tenth of the users {told(record.extras.get('worst_decile'))}.",
    )


def print_attribute(console: Console, result: StudyResult) -> None:
    """What the status quo's and the front's answers tell of the study's attribute; nothing where it asks for none."""
    records = attribute_trials(result)
    if not records:
        return
    table = Table(
        "trial",
        "leakage",
        "p",
        "bits of min-entropy",
        "members - others",
        "advantage",
        "risk is",
        box=None,
        pad_edge=False,
    )
    for record in records:
        e = record.extras
        table.add_row(
            "status quo" if record.number == STATUS_QUO_TRIAL else str(record.number),
            told(e["attribute_leakage"]),
            "" if math.isnan(e["attribute_p"].value) else f"{e['attribute_p'].value:.2f}",
            told(e["attribute_min_entropy"]),
            told(e["attribute_training"]),
            told(e["advantage"]),
            "the attribute's" if by_attribute(record) else "membership's",
        )
    known = ", ".join(result.spec.get("attribute_auxiliary", ())) or "the base rate alone"
    heading(console, f"What the answers tell of {result.spec['attribute']}, beyond imputing it from {known}")
    console.print(table)
    for note in sorted({r.extras["attribute_leakage"].note for r in records} - {""}):
        say(console, f"Note: {note}.")


def told(m: Measurement | None) -> str:
    """A number with its error, or that it was not assessed."""
    return "not assessed" if m is None or math.isnan(m.value) else plus_minus(dataclasses.replace(m, note=""))


def plus_minus(m: Measurement) -> str:
    """A number with its error, if it has one."""
    return f"{m.value:.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.3f}"
