"""Publication of a study's figures and notes in its Optuna storage, and the dashboard's server."""

import math
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna_dashboard import run_server, save_note, save_plotly_graph_object

from moo.core.errors import InputError, PolicyError
from moo.core.messages import Message, joined, language_of, render
from moo.core.trial_record import TrialRecord
from moo.report import figures
from moo.report.sections.texts import texts
from moo.search.storage import opened, storage_errors
from moo.studies.results.recommendation import Recommendation
from moo.studies.results.result import StudyResult, load_result
from moo.studies.results.search_cost import SearchCost
from moo.studies.search.select_one import INTERNAL, check_may_show

HOST = "127.0.0.1"


def publish(result: StudyResult, storage: optuna.storages.BaseStorage, *, lang: str = "en") -> optuna.Study:
    """Publish a study's figures and notes in the dashboard.

    Figures: the 3-D front, accuracy and risk with error bars, parallel coordinates.

    Earlier ones are replaced, so that publishing twice changes nothing.

    Args:
        result: The study.
        storage: Storage of its Optuna study.
        lang: Language of figures and notes, "en" or "zh".

    Raises:
        InputError: If the storage holds no study of that name.
        PolicyError: Under `select_one`: the dashboard shows every trial.
    """
    check_may_show(result)
    try:
        study = optuna.load_study(study_name=result.name, storage=storage)
    except KeyError as error:
        raise InputError(
            "the storage must hold the study {name!r}, but does not; pass its --storage.", name=result.name
        ) from error
    t = texts(lang)
    for name, title, draw in (
        ("front-3d", t["figure_3d"], figures.front_3d),
        ("front-2d", t["figure_2d"], figures.front_2d),
        ("parallel", t["figure_parallel"], figures.parallel),
    ):
        # above a legend of two rows, or slanted names of axes
        top = {"text": title, "y": 0.98, "yanchor": "top"}
        figure = draw(result, t).update_layout(title=top, height=None, margin={"t": 130})
        save_plotly_graph_object(study, figure, graph_object_id=name)
    save_note(study, render(study_note(result), lang))
    records = {r.number: r for r in result.trials}
    for trial in study.trials:
        if trial.number in records:
            save_note(optuna.Trial(study, trial._trial_id), render(trial_note(records[trial.number]), lang))
    return study


def study_note(result: StudyResult) -> Message:
    """Return Markdown: the recommendation, the status quo and what the search cost."""
    choice = result.recommend()
    title = str(result.spec.get("title") or result.name)
    lines = [Message("# {title}", title=title), _recommended(choice)]
    lines += [_alternative(other) for other in result.alternatives()]
    if result.reference:
        template = "Status quo (no DP, nothing masked), never shown to the sampler: {values}."
        lines.append(Message(template, values=_values(result.reference)))
    return joined("\n\n", [*lines, *_cost(result.cost), _front(result), _EVIDENCE])


_EVIDENCE = Message("Rules are evidence for a person to judge.")


def _recommended(choice: Recommendation) -> Message:
    if choice.trial is None:
        return Message("Recommended: **none**; {why}.", why=_sure(choice))
    return Message("Recommended: **Trial {number}**; {why}.", number=choice.trial.number, why=_sure(choice))


def _alternative(choice: Recommendation) -> Message:
    assert choice.trial is not None
    number, name = choice.trial.number, choice.name
    return Message("Or trial {number}, {name}: {why}.", number=number, name=name, why=_sure(choice))


def _cost(cost: SearchCost) -> list[Message]:
    lines = []
    if cost.composed_epsilon is not None:
        template = "The search: composed epsilon {epsilon} at delta {delta:g} ({label})."
        lines.append(Message(template, epsilon=cost.composed_epsilon.text, delta=cost.delta, label=cost.label))
    if cost.data_epsilon is not None:
        lines.append(Message("All studies on these data: composed epsilon {epsilon}.", epsilon=cost.data_epsilon.text))
    return lines


def _front(result: StudyResult) -> Message:
    if not result.on_front:
        return Message("No trial is on the feasible front.")
    template = "Feasible front: trials {numbers}. The dashboard's own list of best trials does not look at constraints."
    return Message(template, numbers=joined(", ", map(str, sorted(result.on_front))))


def _sure(choice: Recommendation) -> Message:
    """Return the reason of a choice, how sure it is to hold its limits, and what it gives up."""
    parts = [choice.reason]
    if not math.isnan(choice.p_feasible):
        parts.append(Message("its limits hold with probability {p:.2f}", p=choice.p_feasible))
    return joined("; ", [*parts, *([choice.trade] if choice.trade else [])])


def trial_note(record: TrialRecord) -> Message:
    """Return Markdown: values with standard errors, epsilon spent, the DP claim, what it breaks."""
    if record.state == "failed":
        return Message(
            "**Failed**: {cause}. The values shown are the sampler's reference point, not measurements.",
            cause=record.cause,
        )
    spent = record.extras["epsilon_spent"].value
    verdict = (
        Message("feasible") if record.feasible else Message("breaks {limits}", limits=joined(", ", record.blocking))
    )
    privacy = Message("trained without DP.")
    if math.isfinite(spent):
        privacy = Message("epsilon spent {epsilon:.3f}; DP claim {claim}.", epsilon=spent, claim=record.claim)
    return joined("\n\n", [Message("{values}: **{verdict}**.", values=_values(record), verdict=verdict), privacy])


def serve(folder: Path, *, port: int, announce: Callable[[str], None], storage: str | None = None) -> None:
    """Publish the study in a folder and serve the dashboard on this machine alone, until interrupted.

    Args:
        folder: Of a study that ran.
        port: TCP port, 1 to 65535.
        announce: Receiver of the address.
        storage: Optuna storage, where it is not study.db in the folder.
    """
    if not 1 <= port <= 65_535:
        raise InputError("1 <= port <= 65535 must hold, but got port={port}.", port=port)
    if storage is None and not (folder / "study.db").is_file():
        raise InputError(
            "the folder must hold a study's study.db, but {folder} does not; run a study, or pass --storage.",
            folder=folder,
        )
    if (folder / INTERNAL).is_file():
        raise PolicyError(
            "under select_one only the winner leaves, but the dashboard shows every trial of {folder}; see its report.",
            folder=folder,
        )
    place = storage if storage is not None else folder / "study.db"
    with storage_errors(place):
        held = opened(place)
        shown = publish(load_result(folder), held, lang=language_of()) if (folder / "front.json").is_file() else None
    page = f"studies/{shown._study_id}" if shown else ""
    announce(f"http://{HOST}:{port}/dashboard/{page} (Ctrl-C ends)")
    if shown is None:
        announce("The run has not ended: moo's figures and notes come with its end.")
    run_server(held, host=HOST, port=port)


def _values(record: TrialRecord) -> Message:
    measured = record.objectives.items()
    template = "{name} {value:.3f} ± {stderr:.3f}"
    parts = [Message(template, name=n.replace("_", " "), value=m.value, stderr=m.stderr) for n, m in measured]
    return joined(", ", parts)
