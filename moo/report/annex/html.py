"""Annex as a page to print: HTML for each language, PDF if there is a browser, and the JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError, StorageError
from moo.core.measurement import Measurement
from moo.core.messages import render
from moo.core.trial_record import ACCURACY, PENALTY, RISK
from moo.objectives.compliance.facts import OF_USERS
from moo.privacy.claims import HOLDS, reasons_of
from moo.report.annex.figure import scatter
from moo.report.annex.rows import SHORT, composed_text, difference_rows, fact_line, front_rows, number, settings_line
from moo.report.annex.words import article_words, fact_words, words
from moo.report.pdf import find_browser, print_pdf
from moo.report.sections.attribute import attribute_lines, interval
from moo.report.sections.audits import annex_audits
from moo.report.sections.texts import say, sentence
from moo.studies.setup.legal_gates import NO_GATE, stated


def save_annex(
    annex: Mapping[str, Any], folder: str | Path, *, langs: Sequence[str] = ("en", "zh"), pdf: bool = True
) -> list[Path]:
    """Write annex.json, also under history/, annex.LANG.html and, with a browser, annex.LANG.pdf.

    Args:
        annex: As `annex_of` makes it.
        folder: Written to; made if it is missing.
        langs: Of "en", "zh".
        pdf: False to write no PDF.

    Returns:
        The files, the JSON first.

    Raises:
        InputError: If a language is another.
        StorageError: If the folder cannot be written.
    """
    target, pages = Path(folder), {lang: render_annex(annex, lang) for lang in langs}
    text = json.dumps(annex, ensure_ascii=False, indent=1)
    written = [target / "annex.json"]
    try:
        (target / "history").mkdir(parents=True, exist_ok=True)
        for path in (target / "history" / f"{annex['made']}-{annex['digest'][:16]}.json", written[0]):
            write_whole(path, text)
        for lang, page in pages.items():
            written.append(target / f"annex.{lang}.html")
            write_whole(written[-1], page)
    except OSError as error:
        raise StorageError(
            "the annex must be writable, but {target} is not: {strerror}.", target=target, strerror=error.strerror
        ) from error
    browser = find_browser() if pdf else None
    if browser:
        written += [print_pdf(target / f"annex.{lang}.html", browser) for lang in langs]
    return written


def read_annex(path: str | Path) -> dict[str, Any]:
    """Read an annex.

    Raises:
        InputError: If it is none.
    """
    try:
        annex: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            "the previous annex must be a readable annex.json, but got {path} ({error}).", path=path, error=error
        ) from error
    return annex


def render_annex(annex: Mapping[str, Any], lang: str = "en") -> str:
    """Return the page's HTML."""
    t = words(lang)
    folder = resources.files("moo.report") / "templates"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "signed": lambda v: f"{v:+.3f}"}
    template = environment.from_string((folder / "annex.html").read_text(encoding="utf-8"))
    rules = [_rule(row, lang, t) for row in annex["rules"]]
    verdicts = {v: sum(r["verdict"] == v for r in rules) for v in ("pass", "fail", "not assessed")}
    return template.render(
        t=t,
        lang=lang,
        a=annex,
        style=Markup((folder / "annex.css").read_text(encoding="utf-8")),
        title=render(annex["study"]["title"] or annex["study"]["name"], lang),
        rules=rules,
        verdicts=verdicts,
        domains=_domains(annex, lang, t),
        why=_why(annex, t),
        privacy=_privacy(annex, t),
        audits=annex_audits(annex, t),
        declaration=render(annex["data"].get("declaration", ""), lang),
        risk=_risk(annex, lang, t),
        steps=_steps(annex, lang, t),
        dropped=_dropped(annex, lang, t),
        difference=difference_rows(annex, lang, t),
        front=front_rows(annex, t),
        figure=Markup(scatter(annex, t)),
        settings=settings_line(annex["point"]["params"], t),
        names=(ACCURACY, RISK, PENALTY),
    )


def _rule(row: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": row["rule"],
        "pia": row["pia"],
        "kind": row["kind"],
        "title": row[f"title_{lang}"],
        "article": article_words(row["article"], lang),
        "status": t[row["status"]],
        "as_of": row["as_of"],
        "verdict": row["verdict"],
        "css": row["verdict"].replace(" ", "-"),
        "facts": [fact_line(key, value, lang, t) for key, value in row["facts"].items()],
        "score": row["score"] if row["kind"] != "gate" and row["verdict"] != "not assessed" else None,
        "fix": "" if row["verdict"] == "pass" else _fix(row, t),
        "digest": row["digest"],
    }


def _fix(row: Mapping[str, Any], t: Mapping[str, str]) -> str:
    """Return what mends a rule: settings that its number varies with, or how it becomes known."""
    if row["verdict"] == "not assessed":
        fact = next(iter(row["facts"]))
        kind = "users" if fact in OF_USERS else fact.split(".")[0]
        return t.get(f"fix_unknown_{kind}", t["fix_unknown"])
    return t["and"].join(t[f"fix_{what}"] for what in row["varies"] if f"fix_{what}" in t)


def _domains(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one line a domain: its contribution, and the rule that carries it."""
    return [
        {
            "name": t.get(row["domain"], row["domain"]),
            "contribution": row["contribution"],
            "weight": row["weight"],
            "score": row["score"],
            "rule": row["rule"],
            "title": row[f"title_{lang}"],
            "fact": t["and"].join(fact_line(k, v, lang, t) for k, v in row["facts"].items()),
        }
        for row in annex["domains"]
    ]


def _why(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[str]:
    point, why = annex["point"], annex["point"]["why"]
    if annex["study"].get("alone"):
        return [t["why_selected" if point["feasible"] else "why_nearest"].format(blocking=", ".join(point["blocking"]))]
    only = point["on_front"] and why["on_front"] == 1
    out = [t["why_only" if only else "why_chosen"].format(n=why["on_front"])]
    if why["recommended"]:
        out = [sentence(why["reason"], t)]
    out.append(t["why_sure"].format(p=f"{float(why['p_feasible']):.2f}"))
    if why.get("weights") and not only:
        weights = t["and"].join(f"{t[name]} {weight:g}" for name, weight in why["weights"].items())
        out.append(t["why_weighed"].format(weights=weights))
    if point["on_front"] and not only:
        out.append(t["why_better"].format(**{name: why["better"][long] for name, long in SHORT.items()}))
    elif not point["on_front"]:
        out.append(t["why_off"].format(blocking=", ".join(point["blocking"]) or t["dominated"]))
    if why["against_status_quo"]:
        out.append(t["why_against"].format(**{k: f"{why['against_status_quo'][v]:+.3f}" for k, v in SHORT.items()}))
    for other in why["alternatives"]:
        name = t["why_or"].format(number=other["number"], name=say(other["name"], t))
        trade = say(other["trade"], t)
        out.append(f"{name}{t['colon']}{trade}{t['stop']}" if trade else f"{name}{t['stop']}")
    kept = next(row["kept"] for row in annex["front"] if row["number"] == point["number"])
    out.append(t["why_weights"].format(n=annex["checks"]["weightings"], share=f"{100 * kept:.0f} %"))
    return out


def _risk(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> list[str]:
    point, checks = annex["point"], annex["checks"]
    # present with an attribute, whose leakage may be the risk in its place
    advantage = point["extras"].get("advantage")
    measured = Measurement.from_json(advantage or point["objectives"][RISK])
    out = [
        t["risk_line"].format(
            **interval(measured), upper=f"{measured.upper:.3f}", limit=number(annex["study"]["limits"]["max_risk"])
        )
    ]
    out += attribute_lines(annex, t)
    ceiling = point["extras"].get("risk_ceiling", {}).get("value")
    if ceiling is not None and math.isfinite(float(ceiling)) and float(ceiling) < 1:
        out.append(t["ceiling_line"].format(ceiling=f"{float(ceiling):.3f}"))
    if checks["null_auc"] is not None:
        out.append(t["null_line"].format(auc=f"{checks['null_auc']:.3f}", n=checks["null_trials"]))
    if annex.get("gates", "") == NO_GATE:
        out.append(t["no_gate"])
    if facts := stated({"declare": annex.get("declared_not_measured", {})}):
        signed = annex["declared_not_measured"]
        out.append(t["declared_by"].format(said=say(facts, t), signer=signed["signer"], date=signed["date"]))
    if annex["threat_model"]:
        out.append(t["threat"].format(threat=render(annex["threat_model"], lang)))
    return out


def _privacy(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[str]:
    point, search = annex["point"], annex["search"]
    unit = annex["data"].get("unit", "record")
    claim = point["claim"]
    claim_text = t["holds"] if claim == HOLDS else t["withdrawn"].format(reason=say(reasons_of(claim), t))
    spent = point["extras"].get("epsilon_spent", {"value": "inf"})["value"]
    policy = str(search["policy"])
    by_policy = t[f"policy_{policy.split('(')[0]}"].format(
        policy=policy, label=say(search["label"], t), guaranteed=number(search["guaranteed_epsilon"])
    )
    return [
        t["trial_epsilon"].format(
            epsilon=number(spent), delta=f"{search['delta']:g}", unit=t.get(unit, unit), claim=claim_text
        ),
        *_search_epsilon(search, t),
        by_policy,
        *([sentence(search["capped"], t)] if search.get("capped") else []),
        f"{t['anchor']}{t['colon']}{search['anchor'] or '–'}",
    ]


def _search_epsilon(search: Mapping[str, Any], t: Mapping[str, str]) -> list[str]:
    """Return the epsilon of the search; nothing where it would reveal the number of trials."""
    if search["composed_epsilon"] is None:
        return []
    composed, everything = (composed_text(search[name], t) for name in ("composed_epsilon", "data_epsilon"))
    return [t["search_epsilon"].format(epsilon=composed, delta=f"{search['delta']:g}", all=everything)]


def _steps(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            **step,
            "name": render(step["name"].replace("_", " "), lang),
            "scope": t.get(step["scope"], step["scope"]),
            "why": render(_reason(step), lang),
        }
        for step in annex["data"].get("transformations", [])
    ]


def _reason(step: Mapping[str, Any]) -> str:
    """Return the purpose of a step; its detail if it takes a fact as public or only refuses."""
    reason = step["why"] if step.get("effect", "changes") == "changes" else step["detail"]
    return str(reason or step["detail"])


def _dropped(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> str:
    dropped = annex["data"].get("dropped", {})
    return (
        t["and"].join(f"{fact_words(f'data.{reason}', lang)[0]} {n:,}" for reason, n in dropped.items() if n)
        or t["nothing"]
    )
