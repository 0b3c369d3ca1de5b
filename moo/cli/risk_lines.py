"""Lines and tables about risk: the front trained again, the recommendation, the attribute."""

import math

from rich.console import Console
from rich.table import Table

from moo.cli.console import headers, heading, say
from moo.cli.language import listed, spoken, words
from moo.cli.numbers import epsilon_text, measured, plus_minus
from moo.core.trial_record import ACCURACY, PENALTY, RISK, STATUS_QUO_TRIAL
from moo.report.sections.attribute import attribute_trials, by_attribute
from moo.studies.results.recommendation import Recommendation
from moo.studies.results.result import StudyResult


def print_refined(console: Console, result: StudyResult) -> None:
    """Print the front's points as the search measured them, and over both of their trainings."""
    searched = {t.number: t for t in result.trials}
    names = headers("trial", "accuracy: search", "accuracy: both", "risk: search", "risk: both", "limits")
    table = Table(*names, box=None, pad_edge=False)
    for record in result.refined:
        cells = [plus_minus(t.objectives[name]) for name in (ACCURACY, RISK) for t in (searched[record.number], record)]
        if record.feasible:
            verdict = words("[green]held[/]")
        else:
            verdict = words("[yellow]broken: {limits}[/]", limits=listed(list(record.blocking)))
        table.add_row(str(record.number), *cells, verdict)
    heading(console, "The front trained again, more shadows each")
    console.print(table)


def print_recommendation(console: Console, result: StudyResult) -> None:
    """Print the point to take, how sure it is, what it costs, and the alternatives likewise."""
    choice = result.recommend()
    if choice.trial is None:
        say(console, "[bold]No recommendation[/]: {reason}.", reason=spoken(choice.reason))
    else:
        alone = words("the winner") if result.alone else words("trial {number}", number=choice.trial.number)
        say(
            console,
            "[bold]Recommended: {trial}{name}[/] (epsilon {epsilon}, claim {claim}); {reason}.",
            trial=alone,
            name=words(", {text}", text=spoken(choice.name)) if choice.name else "",
            epsilon=epsilon_text(choice.trial.extras["epsilon_spent"].value),
            claim=spoken(choice.trial.claim),
            reason=spoken(choice.reason),
        )
        _print_chance(console, result, choice)
    for other in result.alternatives():
        assert other.trial is not None
        say(
            console,
            "Or trial {number}, {name}: {reason}.",
            number=other.trial.number,
            name=spoken(other.name),
            reason=spoken(other.reason),
        )
        _print_chance(console, result, other)
    if choice.trial is not None:
        print_confirmation(console, result)


def _print_chance(console: Console, result: StudyResult, choice: Recommendation) -> None:
    assert choice.trial is not None
    if math.isnan(choice.p_feasible):
        return
    say(
        console,
        "  Its limits hold with probability {chance:.2f} (risk at most {upper:.3f}, limit {limit:g}){trade}.",
        chance=choice.p_feasible,
        upper=choice.trial.objectives[RISK].upper,
        limit=result.limits["max_risk"],
        trade=words("; {text}", text=spoken(choice.trade)) if choice.trade else "",
    )


def print_confirmation(console: Console, result: StudyResult) -> None:
    """Print the confirmation of the recommendation, or that there is none yet."""
    if result.confirmed is None:
        if not result.refined and result.about.get("policy", {}).get("name") in ("internal", "proxy_then_retrain"):
            say(
                console,
                "Not confirmed: the best of many noisy numbers is too good. `moo confirm` trains the front again and "
                "the "
                "recommendation on a fresh split.",
            )
        return
    record = result.confirmed
    if record.feasible:
        verdict = words("[green]Confirmed[/]")
    else:
        verdict = words("[bold red]Not confirmed[/], it breaks {limits}", limits=listed(list(record.blocking)))
    if by_attribute(record):
        attribute = spoken(result.spec["attribute"])
        say(console, "Its risk is the leakage of {attribute}, above the membership advantage.", attribute=attribute)
    p = record.extras.get("permutation_p")
    say(
        console,
        "{verdict} on a fresh split: accuracy {accuracy}, membership risk {risk}{chance}, penalty {penalty}; most "
        "exposed tenth of the users {exposed}.",
        verdict=verdict,
        accuracy=plus_minus(record.objectives[ACCURACY]),
        risk=plus_minus(record.objectives[RISK]),
        chance="" if p is None else words(" (permutation p {p:.3f})", p=p.value),
        penalty=plus_minus(record.objectives[PENALTY]),
        exposed=measured(record.extras.get("worst_decile")),
    )


def print_attribute(console: Console, result: StudyResult) -> None:
    """Print what the status quo and the front reveal of the study's attribute, if it has one."""
    records = attribute_trials(result)
    if not records:
        return
    names = headers("trial", "leakage", "p", "bits of min-entropy", "members - others", "advantage", "risk is")
    table = Table(*names, box=None, pad_edge=False)
    for record in records:
        e = record.extras
        table.add_row(
            words("status quo") if record.number == STATUS_QUO_TRIAL else str(record.number),
            measured(e["attribute_leakage"]),
            "" if math.isnan(e["attribute_p"].value) else f"{e['attribute_p'].value:.2f}",
            measured(e["attribute_min_entropy"]),
            measured(e["attribute_training"]),
            measured(e["advantage"]),
            words("the attribute's") if by_attribute(record) else words("membership's"),
        )
    known = [spoken(name) for name in result.spec.get("attribute_auxiliary", ())]
    heading(
        console,
        "What the answers reveal of {attribute}, beyond imputing it from {known}",
        attribute=spoken(result.spec["attribute"]),
        known=listed(known) or words("the base rate alone"),
    )
    console.print(table)
    for note in sorted({r.extras["attribute_leakage"].note for r in records} - {""}):
        say(console, "Note: {note}.", note=spoken(note))
