"""Page of the report: its content and order; the template lays it out."""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
import plotly.io
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from moo.core.atomic_files import write_whole
from moo.core.errors import StorageError
from moo.core.measurement import Measurement
from moo.core.messages import render as rendered
from moo.core.trial_record import ACCURACY, MAJORITY, PENALTY, RISK, TrialRecord
from moo.objectives.compliance.sensitivity import TOO_ALIKE
from moo.report import figures
from moo.report.annex.words import article_words
from moo.report.figures import epsilon_text
from moo.report.sections.attribute import attribute_section, by_attribute
from moo.report.sections.audits import audit_lines
from moo.report.sections.choices import alternative_rows, alternatives_note, plus_minus, sure_lines
from moo.report.sections.cost import cost_lines
from moo.report.sections.facts import data_facts
from moo.report.sections.likeness import likeness
from moo.report.sections.texts import say, sentence, texts
from moo.studies.results.audit_report import AuditReport, load_audits
from moo.studies.results.result import StudyResult, load_result

_CONFIG = {"responsive": True, "displaylogo": False, "displayModeBar": False}


def save_report(result: StudyResult, folder: str | Path, *, lang: str = "en") -> Path:
    """Write report.html (report.zh.html in Chinese): one file that fetches nothing.

    Args:
        result: The study.
        folder: Written to; made if it is missing.
        lang: "en" or "zh".

    Returns:
        The file's path.

    Raises:
        InputError: If the language is another.
        StorageError: If the folder cannot be written.
    """
    page = render(result, lang, audits=load_audits(folder))
    target = Path(folder) / ("report.html" if lang == "en" else f"report.{lang}.html")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, page)
    except OSError as error:
        raise StorageError(
            "the report must be writable, but {target} is not: {strerror}.", target=target, strerror=error.strerror
        ) from error
    return target


def renew_reports(folder: str | Path, *, but: str = "") -> None:
    """Write the reports of a study's folder again, except the one in the language `but`."""
    for lang, name in (("en", "report.html"), ("zh", "report.zh.html")):
        if lang != but and (Path(folder) / name).is_file():
            save_report(load_result(folder), folder, lang=lang)


def render(result: StudyResult, lang: str = "en", *, audits: Sequence[AuditReport] = ()) -> str:
    """Return the page's HTML; `audits` of its trials are shown with the claim."""
    t = texts(lang) | ({"alone": texts(lang)["winner"]} if result.alone else {})
    folder = resources.files("moo.report") / "templates"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., str]] = {
        "pm": plus_minus,
        "signed": lambda v: f"{v:+.3f}",
        "sentence": lambda v: sentence(v, t),
        "code": _code,
    }
    environment.filters |= filters
    template = environment.from_string((folder / "report.html").read_text(encoding="utf-8"))
    recommendation = result.recommend()
    complete = [*([result.reference] if result.reference else []), *result.complete]
    return template.render(
        t=t,
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
        result=result,
        called=lambda record: figures.called(record.number, t),
        title=rendered(result.spec.get("title") or result.name, lang),
        recommendation=recommendation,
        deltas=_deltas(recommendation.trial, result.reference),
        sure=sure_lines(result, t),
        alternatives=alternative_rows(result, t),
        alternatives_note=alternatives_note(recommendation.trial, t),
        confirmation=_confirmation(result, t),
        confirmed=result.confirmed is not None,
        figure_2d=_html(figures.front_2d(result, t), "front-2d") if complete else "",
        figure_3d=_html(figures.front_3d(result, t), "front-3d") if complete else "",
        figure_hv=_html(figures.hypervolume(result, t), "hypervolume") if result.complete and not result.alone else "",
        figure_domains=_html(figures.domains(result, t), "domains") if complete else "",
        rows=[_row(row, t) for row in result.table.to_dict("records")],
        halved=any(t.params.batch_halvings for t in result.trials),
        rules=_rules(recommendation.trial, result.reference, lang, t),
        cost=cost_lines(result, t),
        audits=audit_lines(result, audits, t),
        attribute=attribute_section(result, t),
        facts=data_facts(result, t),
        checks=_checks(result, t),
        made=_made(result, t),
    )


def _code(text: str) -> Markup:
    """Return text with the parts between backticks set as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _html(figure: go.Figure, name: str) -> Markup:
    # height of the element, not of the drawing, so that a small page can change it
    height = f"{figure['layout']['height']:.0f}px"
    figure.update_layout(height=None)
    return Markup(
        plotly.io.to_html(
            figure, include_plotlyjs=False, full_html=False, div_id=name, config=_CONFIG, default_height=height
        )
    )


def _deltas(chosen: TrialRecord | None, reference: TrialRecord | None) -> dict[str, float]:
    if chosen is None or reference is None:
        return {}
    return {n: chosen.objectives[n].value - reference.objectives[n].value for n in (ACCURACY, RISK, PENALTY)}


def _confirmation(result: StudyResult, t: Mapping[str, str]) -> list[str]:
    """Return the confirmation of the recommended point, and its risk for the most exposed users."""
    record = result.confirmed
    chosen = record or result.recommend().trial
    lines = []
    if record is not None:
        numbers = {
            k: plus_minus(record.objectives[n], t["unknown"])
            for k, n in (("accuracy", ACCURACY), ("risk", RISK), ("penalty", PENALTY))
        }
        lines.append(
            t["confirmed" if record.feasible else "not_confirmed"].format(
                limits=t["and"].join(record.blocking), **numbers
            )
        )
        if by_attribute(record):
            attribute = say(result.spec["attribute"], t)
            lines.append(f"{t[RISK]}{t['colon']}{t['risk_is_attribute'].format(attribute=attribute)}{t['stop']}")
        if "permutation_p" in record.extras:
            lines.append(t["permutation"].format(p=f"{record.extras['permutation_p'].value:.3f}"))
    elif result.about.get("policy", {}).get("name") in ("internal", "proxy_then_retrain"):
        lines.append(t["unconfirmed"])
    if chosen is not None and MAJORITY in chosen.extras:
        lines.append(t["majority_line"].format(majority=plus_minus(chosen.extras[MAJORITY])))
    exposed = None if chosen is None else chosen.extras.get("worst_decile")
    if exposed is not None:
        risk = say(exposed.note, t) if math.isnan(exposed.value) else plus_minus(exposed)
        lines.append(t["worst_tenth"].format(risk=risk))
    return lines


def depth_text(adapted: int, dropped: int, queries: int, t: Mapping[str, str]) -> str:
    """Return the depth of adaptation, in as few words as it takes."""
    more = [t["layers_dropped"].format(dropped)] if dropped else []
    more += [t["queries"].format(queries)] if queries else []
    return t["aside"].format(text=adapted, aside=t["and"].join(more)) if more else str(adapted)


def _row(row: Mapping[Any, Any], t: Mapping[str, str]) -> dict[str, Any]:
    """Return one line of the table of trials."""
    number, deep = int(row["number"]), bool(row["adapted_layers"])
    failed = bool(row["cause"])
    verdict = t["feasible"] if row["feasible"] else t["and"].join(str(row["blocked_by"]).split())
    if row["on_front"]:
        verdict = t["on_front"]
    return {
        "name": t["status_quo"] if number < 0 else str(number),
        "epsilon": epsilon_text(row["target_epsilon"], t["no_dp"]),
        "masking": f"L{row['masking_level']}",
        "depth": depth_text(row["adapted_layers"], row["layers_dropped"], row["n_queries"], t),
        "rank": row["lora_rank"] if deep else "–",
        "rate": f"{row['learning_rate']:.1e}" if deep else "–",
        "halvings": row["batch_halvings"],
        "objectives": [
            "" if failed else plus_minus(Measurement(value=row[o], stderr=row[f"{o}_stderr"]), t["unknown"])
            for o in (ACCURACY, RISK, PENALTY)
        ],
        "majority": "" if failed else plus_minus(Measurement(value=row[MAJORITY], stderr=row[f"{MAJORITY}_stderr"])),
        "p_front": "" if failed or number < 0 else f"{row['p_non_dominated']:.2f}",
        "p_feasible": "" if failed or number < 0 else f"{row['p_feasible']:.2f}",
        "verdict": f"{t['failed']}{t['colon']}{say(row['cause'], t)}" if failed else verdict,
        "kind": "front" if row["on_front"] else "" if row["feasible"] else "broken",
    }


def _rules(
    chosen: TrialRecord | None, reference: TrialRecord | None, lang: str, t: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return one line a rule: measurement and score, of the recommended point and the status quo."""
    newest = chosen or reference
    shown = {r["rule"]: r for r in newest.contributions} if newest else {}
    before = {r["rule"]: r for r in reference.contributions} if reference else {}
    rows = []
    for name, row in shown.items():
        other = before.get(name)
        rows.append(
            {
                "rule": name,
                "kind": row["kind"],
                "title": row[f"title_{lang}"],
                "article": article_words(row["article"], lang),
                "measured": [_measured(r, t) for r in (other, row)],
                "scores": ["" if r is None else f"{float(r['score']):.2f}" for r in (other, row)],
                "contributions": ["" if r is None else f"{float(r['contribution']):.3f}" for r in (other, row)],
                "carries": bool(row["contribution"]),
            }
        )
    return sorted(rows, key=lambda r: (r["kind"] != "graded", r["rule"]))


def _measured(row: Mapping[str, Any] | None, t: Mapping[str, str]) -> str:
    if row is None:
        return ""
    return t["unknown"] if row["value"] is None else f"{float(row['value']):.4g}".replace("inf", "∞")


def _checks(result: StudyResult, t: Mapping[str, str]) -> list[str]:
    records = [*([result.reference] if result.reference else []), *result.complete]
    nulls = result.null_aucs
    out = []
    if nulls:
        out.append(t["null"].format(auc=f"{sum(nulls) / len(nulls):.3f}", n=len(nulls)))
    if result.reference is not None and "baseline_accuracy" in result.reference.extras:
        baseline = plus_minus(result.reference.extras["baseline_accuracy"])
        out.append(t["baseline"].format(accuracy=plus_minus(result.reference.objectives[ACCURACY]), baseline=baseline))
    correlation = likeness(result)
    if correlation > TOO_ALIKE:
        out.append(t["too_alike"].format(r=f"{correlation:.2f}"))
    missing = {r.objectives[PENALTY].note for r in records} - {""}
    out += [sentence(note, t) for note in sorted(missing)]
    out += [f"{_name(r, t)}{t['colon']}{say(alarm, t)}{t['stop']}" for r in records for alarm in r.alarms]
    return out + [
        t["aside"].format(text=say(notice, t), aside=say(trials, t)) + t["stop"]
        for notice, trials in result.notices.items()
    ]


def _name(record: TrialRecord, t: Mapping[str, str]) -> str:
    return t["status_quo"] if record.number < 0 else figures.called(record.number, t)


def _made(result: StudyResult, t: Mapping[str, str]) -> str:
    about = result.about
    if not about:
        return ""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    if result.alone:
        return t["made_alone"].format(versions=versions)
    return t["made"].format(
        trials=len(result.trials),
        minutes=f"{about['seconds'] / 60:.1f}",
        memory=f"{about['peak_memory_gib']:.1f}",
        versions=versions,
    )
