"""Push a study's figures and notes into its Optuna storage, and serve it."""

import math
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna_dashboard import run_server, save_note, save_plotly_graph_object

from moo.core.errors import InputError, PolicyError
from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialRecord
from moo.report import figures
from moo.report.sections.texts import texts
from moo.search.storage import opened, storage_errors
from moo.studies.results.recommendation import Recommendation
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.select_one import INTERNAL, check_may_show

HOST = "127.0.0.1"


def publish(result: StudyResult, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """Show a study in the dashboard: the 3-D front, accuracy and risk with error bars, parallel coordinates, notes.

    What is shown before is replaced, so that publishing twice changes nothing.

    Args:
        result: The study.
        storage: Where its Optuna study lives.

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
    t = texts("en")
    for name, title, draw in (
        ("front-3d", t["figure_3d"], figures.front_3d),
        ("front-2d", t["figure_2d"], figures.front_2d),
        ("parallel", t["figure_parallel"], figures.parallel),
    ):
        top = {"text": title, "y": 0.98, "yanchor": "top"}  # above a legend of two rows, or slanted names of axes
        figure = draw(result, t).update_layout(title=top, height=None, margin={"t": 130})
        save_plotly_graph_object(study, figure, graph_object_id=name)
    save_note(study, study_note(result))
    records = {r.number: r for r in result.trials}
    for trial in study.trials:
        if trial.number in records:
            save_note(optuna.Trial(study, trial._trial_id), trial_note(records[trial.number]))
    return study


def study_note(result: StudyResult) -> str:
    """Markdown: the recommendation, the status quo and what the search cost."""
    choice = result.recommend()
    chosen = f"**Trial {choice.trial.number}**" if choice.trial else "**none**"
    lines = [f"# {result.spec.get('title') or result.name}", f"Recommended: {chosen}; {_sure(choice)}."]
    for other in result.alternatives():
        assert other.trial is not None
        lines.append(f"Or trial {other.trial.number}, {other.name}: {_sure(other)}.")
    if result.reference:
        lines.append(f"Status quo (no DP, nothing masked), never shown to the sampler: {_values(result.reference)}.")
    cost = result.cost
    lines.append(f"The search: composed epsilon {cost.composed_epsilon} at delta {cost.delta:g} ({cost.label}).")
    lines.append(f"All studies on these data: composed epsilon {cost.data_epsilon}.")
    front = ", ".join(map(str, sorted(result.on_front))) or "none"
    lines.append(
        f"Feasible front: trials {front}. The dashboard's own list of best trials does not look at constraints."
    )
    lines.append("Rules are evidence for a person to judge.")
    return "\n\n".join(lines)


def _sure(choice: Recommendation) -> str:
    """Reason of a choice, how sure it is to hold its limits, and what it gives up."""
    chance = "" if math.isnan(choice.p_feasible) else f"its limits hold with probability {choice.p_feasible:.2f}"
    return "; ".join(part for part in (choice.reason, chance, choice.trade) if part)


def trial_note(record: TrialRecord) -> str:
    """Markdown: values with standard errors, epsilon spent, the DP claim, what it breaks."""
    if record.state == "failed":
        return f"**Failed**: {record.cause}. The values shown are the sampler's reference point, not measurements."
    spent = record.extras["epsilon_spent"].value
    verdict = "feasible" if record.feasible else f"breaks {', '.join(record.blocking)}"
    return "\n\n".join(
        [
            f"{_values(record)}: **{verdict}**.",
            f"epsilon spent {spent:.3f}; DP claim {record.claim}." if math.isfinite(spent) else "trained without DP.",
        ]
    )


def serve(folder: Path, *, port: int, announce: Callable[[str], None], storage: str | None = None) -> None:
    """Publish the study in a folder and serve the dashboard on this machine alone, until interrupted.

    Args:
        folder: Of a study that ran.
        port: TCP port, 1 to 65535.
        announce: Told the address.
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
        shown = publish(load_result(folder), held) if (folder / "front.json").is_file() else None
    page = f"studies/{shown._study_id}" if shown else ""
    announce(f"http://{HOST}:{port}/dashboard/{page} (Ctrl-C ends)")
    if shown is None:
        announce("The run has not ended: moo's figures and notes come with its end.")
    run_server(held, host=HOST, port=port)


def _values(record: TrialRecord) -> str:
    named = {ACCURACY: "accuracy", RISK: "membership risk", PENALTY: "compliance penalty"}
    parts = (f"{named[n]} {m.value:.3f} ± {m.stderr:.3f}" for n, m in record.objectives.items())
    return ", ".join(parts)
