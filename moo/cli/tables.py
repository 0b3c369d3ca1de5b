"""The result of a study in the terminal: the front, and the lines below it."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moo.cli.console import ROOMY, heading, narrow, say, show
from moo.cli.language import language, listed, sentence, spoken, words
from moo.cli.numbers import composed_text, epsilon_text, measured
from moo.cli.risk_lines import print_attribute, print_recommendation
from moo.core.measurement import Measurement
from moo.core.messages import Message
from moo.core.trial_record import (
    ABOVE_MAJORITY,
    ACCURACY,
    MAJORITY,
    PENALTY,
    RISK,
    Transformation,
    TrialRecord,
    describe_steps,
)
from moo.objectives.compliance.sensitivity import TOO_ALIKE
from moo.privacy.claims import HOLDS
from moo.report.sections.likeness import likeness
from moo.studies.results.recommendation import p_feasible
from moo.studies.results.result import StudyResult
from moo.studies.setup.legal_gates import notes_of

# Label of a row that is on the front and nothing else
_FRONT = "front"


def print_result(console: Console, result: StudyResult) -> None:
    """Print the front with the status quo and the first trials, cost and recommendation."""
    shown = _shown(result)
    if result.alone:
        heading(console, "{study}: the winner", study=result.name)
    else:
        heading(console, "{study}: feasible front and anchors", study=result.name)
    console.print(_front_table(result, shown, short=narrow(console), roomy=console.width >= ROOMY))
    _print_majority(console, result, [t for _, t in shown])
    print_attribute(console, result)
    _print_reference(console, result)
    _print_remarks(console, result)
    _print_cost(console, result)
    _print_data(console, result)
    for reason in dict.fromkeys(t.claim for t in result.complete if t.claim != HOLDS):
        say(console, "[bold red]DP claim {reason}.[/]", reason=spoken(reason))
    for trial in result.complete:
        for alarm in trial.alarms:
            line = sentence(words("{trial}, {alarm}", trial=_called(result, trial), alarm=spoken(alarm)))
            show(console, f"[bold red]{line}[/]")
    print_recommendation(console, result)


def _shown(result: StudyResult) -> list[tuple[str, TrialRecord]]:
    """Return label and trial of each row."""
    if result.alone:
        return [("the winner", t) for t in result.complete]
    reference = [] if result.reference is None else [("status quo", result.reference)]
    labels = () if result.cost.policy == "select_one" else ("strictest", "head alone")
    first = [(label, t) for label, t in zip(labels, result.trials, strict=False)]
    numbers = {t.number for _, t in first}
    front = [t for t in result.complete if t.number in result.on_front and t.number not in numbers]
    return reference + first + [(_FRONT, t) for t in sorted(front, key=lambda t: -t.objectives[ACCURACY].value)]


def _called(result: StudyResult, trial: TrialRecord) -> Message:
    return Message("the winner") if result.alone else Message("trial {number}", number=trial.number)


def _print_majority(console: Console, result: StudyResult, shown: Sequence[TrialRecord]) -> None:
    """Print the accuracy of a constant answer, and the trials that do not exceed it clearly."""
    known = [t for t in shown if MAJORITY in t.extras]
    if not known:
        if result.about.get("policy", {}).get("answer_noise"):
            say(console, "\nMajority baseline: not released, since an exact one would read private users.")
        return
    low = [t for t in known if t.extras[ABOVE_MAJORITY].value <= 2 * t.extras[ABOVE_MAJORITY].stderr]
    names = [words("status quo") if t.number < 0 else spoken(_called(result, t)) for t in low]
    say(
        console,
        "\nAlways answering the most frequent class of the test users is right in {majority}.{low}",
        majority=measured(known[0].extras[MAJORITY]),
        low=words(" [yellow]Not above it by two standard errors: {trials}.[/]", trials=listed(names)) if low else "",
    )


def _print_reference(console: Console, result: StudyResult) -> None:
    if result.reference is None:
        if result.cost.cap is None:
            say(console, "\nNo status quo: the policy allows no training without DP.")
        else:
            say(console, "\nNo status quo: the cap on these data allows no training without DP.")
        return
    nulls = result.null_aucs
    null = ""
    if nulls:
        null = words(
            " Null: records that no shadow saw score AUC {auc:.3f} over {n} trials.",
            auc=sum(nulls) / len(nulls),
            n=len(nulls),
        )
    say(
        console,
        "\nStatus quo {accuracy:.3f}, scikit-learn baseline on the same frozen features {baseline:.3f}.{null}",
        accuracy=result.reference.objectives[ACCURACY].value,
        baseline=result.reference.extras["baseline_accuracy"].value,
        null=null,
    )


def _print_remarks(console: Console, result: StudyResult) -> None:
    correlation = likeness(result)
    if correlation > TOO_ALIKE:
        say(
            console,
            "[yellow]Penalty and membership risk correlate at {correlation:.2f} over the trials: nearly one "
            "objective.[/]",
            correlation=correlation,
        )
    if result.about.get("engine") == "opacus":
        say(
            console,
            "Engine: the reference path, one shadow after another: as chosen, or because the fast one does not know "
            "the "
            "model.",
        )


def _print_cost(console: Console, result: StudyResult) -> None:
    cost = result.cost
    if cost.composed_epsilon is None:
        say(console, "\nThe search, policy {policy}: {label}.", policy=cost.policy, label=spoken(cost.label))
    else:
        say(
            console,
            "\nThe search, policy {policy}: composed epsilon {epsilon} at delta {delta:g} ({label}).",
            policy=cost.policy,
            epsilon=composed_text(cost.composed_epsilon),
            delta=cost.delta,
            label=spoken(cost.label),
        )
    if cost.data_epsilon is not None:
        epsilon = composed_text(cost.data_epsilon)
        say(console, "All studies on these data: composed epsilon {epsilon}.", epsilon=epsilon)


def _print_data(console: Console, result: StudyResult) -> None:
    """Print the steps that prepared the data, notices, notes, and what could not be assessed."""
    steps = [Transformation(**step) for step in result.about.get("data", {}).get("transformations", [])]
    for line in describe_steps(steps):
        say(console, "Data, {step}.", step=spoken(line))
    for notice, trials in result.notices.items():
        say(console, "Note: {notice} ({trials}).", notice=spoken(notice), trials=spoken(trials))
    for note in notes_of(result.spec):
        say(console, "[yellow]{note}.[/]", note=escape(spoken(note)))
    _print_unassessed(console, result)
    data = result.about.get("data", {})
    if "records_per_user" in data and data["records_per_user"] is None:
        say(
            console,
            "Note: rules about users are not assessed, since nothing says how many records a person has: name the "
            "column of "
            "the user, or declare one_record_per_user = true or max_records_per_user.",
        )


def _print_unassessed(console: Console, result: StudyResult) -> None:
    """Print the part of the penalties of rules that lack a fact: such a rule counts in full."""
    rows = [
        [r for r in t.contributions if r["verdict"] == "not assessed" and r["contribution"]] for t in result.complete
    ]
    most = max((sum(float(r["contribution"]) for r in each) for each in rows), default=0.0)
    if most:
        rules = dict.fromkeys(f"{r['rule']} {r[f'title_{language()}'].lower()}" for each in rows for r in each)
        say(
            console,
            "Note: up to {most:.3f} of a penalty is of what could not be assessed: {rules}.",
            most=most,
            rules=listed(list(rules)),
        )


def _front_table(result: StudyResult, shown: Sequence[tuple[str, TrialRecord]], *, short: bool, roomy: bool) -> Table:
    """Return one row a trial.

    Short, its setting is below its name; roomy, there is a column of the most exposed tenth of the users.
    """
    exposed = roomy and any(not math.isnan(_exposed(t).value) for _, t in shown)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    if not short:
        table.add_column("", no_wrap=True)
    table.add_column(words("trial"), justify="left" if short else "right", no_wrap=True)
    if not short:
        table.add_column(words("setting"), no_wrap=True)
    numbers = [words("accuracy"), words("risk")]
    numbers += [] if short else [words("at most")]
    numbers += [words("worst tenth")] if exposed else []
    for name in (*numbers, words("penalty")):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(words("feasible"))
    for label, trial in shown:
        number = "-" if trial.number < 0 or result.alone else str(trial.number)
        names = [words(label), number, _setting(trial)]
        if short:
            name = words(label) if number == "-" else words("{label}, trial {n}", label=words(label), n=number)
            names = [f"{name}\n {_setting(trial)}"]
        table.add_row(*names, *_values(trial, exposed=exposed, short=short), _verdict(label, trial, result))
    return table


def _setting(trial: TrialRecord) -> str:
    p = trial.params
    parts = [
        words(
            "eps {epsilon} L{level} depth {depth}",
            epsilon=epsilon_text(p.target_epsilon),
            level=p.masking_level,
            depth=p.adapted_layers,
        )
    ]
    if p.layers_dropped:
        parts.append(words("top -{n}", n=p.layers_dropped))
    if p.n_queries:
        parts.append(words("queries {n}", n=p.n_queries))
    if p.batch_halvings:
        parts.append(words("halvings {n}", n=p.batch_halvings))
    if p.adapted_layers:
        parts.append(words("rank {n}", n=p.lora_rank))
    return " ".join(parts)


def _exposed(trial: TrialRecord) -> Measurement:
    return trial.extras.get("worst_decile", Measurement(value=math.nan))


def _values(trial: TrialRecord, *, exposed: bool, short: bool) -> list[str]:
    """Return accuracy, risk and its upper bound, the most exposed tenth, penalty.

    Short, the bound is below the risk.
    """
    if trial.state == "failed":
        return [""] * (3 + exposed + (not short))
    measures = [trial.objectives[ACCURACY], trial.objectives[RISK], *([_exposed(trial)] if exposed else [])]
    values = [measured(m, missing="-") for m in (*measures, trial.objectives[PENALTY])]
    upper = trial.objectives[RISK].upper
    bound = "-" if math.isnan(upper) else f"{upper:.3f}"
    if not short:
        return [*values[:2], bound, *values[2:]]
    accuracy, risk, penalty = (v.replace(" ± 0.", " ±.") for v in values)
    return [accuracy, f"{risk}\n<= {bound}", penalty]


def _verdict(label: str, trial: TrialRecord, result: StudyResult) -> str:
    """Return whether a trial is feasible, how probably, and whether it is on the front."""
    if trial.state == "failed":
        return words("failed: {cause}", cause=spoken(trial.cause))
    chance = "" if trial.number < 0 else words(", P {chance:.2f}", chance=p_feasible(trial, result.limits))
    if not trial.feasible:
        # Blanks between the names, so that a narrow column can wrap them in any language
        return words("[yellow]no: {limits}[/]", limits=", ".join(trial.blocking)) + chance
    front = words(", on the front") if trial.number in result.on_front and label != _FRONT else ""
    return words("[green]yes[/]") + chance + front
