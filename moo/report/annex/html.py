"""The annex as a page to print: one HTML file for each language, PDF where there is a browser, and the JSON behind both."""

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
from moo.core.trial_record import ACCURACY, MAJORITY, PENALTY, RISK
from moo.objectives.compliance.facts import OF_USERS
from moo.privacy.composed_epsilon import ComposedEpsilon
from moo.report.annex.figure import scatter
from moo.report.annex.words import article_words, fact_words, words
from moo.report.i18n.chinese import said, sentence
from moo.report.pdf import find_browser, print_pdf
from moo.report.sections.attribute import attribute_lines, interval
from moo.report.sections.audits import annex_audits
from moo.studies.setup.legal_gates import NO_GATE, stated


def save_annex(
    annex: Mapping[str, Any], folder: str | Path, *, langs: Sequence[str] = ("en", "zh"), pdf: bool = True
) -> list[Path]:
    """Write annex.json, annex.LANG.html and, where there is a browser, annex.LANG.pdf; the JSON also under history/.

    Args:
        annex: As `annex_of` makes it.
        folder: Written to; made if it is missing.
        langs: Of "en", "zh".
        pdf: Whether a browser is asked for.

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
    """An annex as it was written.

    Raises:
        InputError: If it is none.
    """
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            "the previous annex must be a readable annex.json, but got {path} ({error}).", path=path, error=error
        ) from error
    return found


def render_annex(annex: Mapping[str, Any], lang: str = "en") -> str:
    """The page's HTML."""
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
        title=said(annex["study"]["title"] or annex["study"]["name"], lang),
        rules=rules,
        verdicts=verdicts,
        domains=_domains(annex, lang, t),
        why=_why(annex, t),
        privacy=_privacy(annex, t),
        audits=annex_audits(annex, t),
        declaration=said(annex["data"].get("declaration", ""), lang),
        risk=_risk(annex, lang, t),
        steps=_steps(annex, lang, t),
        dropped=_dropped(annex, lang, t),
        difference=_difference(annex, lang, t),
        front=_front(annex, t),
        figure=Markup(scatter(annex, t)),
        settings=_settings(annex["point"]["params"], t),
        names=(ACCURACY, RISK, PENALTY),
    )


def number(value: object) -> str:
    """A number as people read it; infinities arrive as texts."""
    x = float(value)  # type: ignore[arg-type]
    if math.isinf(x) or math.isnan(x):
        return "∞" if x > 0 else "–"
    return f"{x:.0f}" if x.is_integer() and abs(x) < 1e6 else f"{x:.3g}" if abs(x) >= 0.01 else f"{x:.2g}"


def _fact(key: str, value: object, lang: str, t: Mapping[str, str]) -> str:
    """A fact with its number, in words."""
    name, kind = fact_words(key, lang)
    if value is None:
        return f"{name}{t['colon']}{t['unknown']}"
    x = float(value)  # type: ignore[arg-type]
    shown = {"share": f"{100 * x:.3g}\u00a0%", "days": f"{x:.0f} {t['days']}", "level": f"L{x:.0f}"}.get(
        kind, number(x)
    )
    return f"{name}{t['colon']}{shown}"


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
        "facts": [_fact(key, value, lang, t) for key, value in row["facts"].items()],
        "score": row["score"] if row["kind"] != "gate" and row["verdict"] != "not assessed" else None,
        "fix": "" if row["verdict"] == "pass" else _fix(row, t),
        "digest": row["digest"],
    }


def _fix(row: Mapping[str, Any], t: Mapping[str, str]) -> str:
    """What would mend a rule: what its number varies with; of an unknown one, how it becomes known."""
    if row["verdict"] == "not assessed":
        fact = next(iter(row["facts"]))
        kind = "users" if fact in OF_USERS else fact.split(".")[0]
        return t.get(f"fix_unknown_{kind}", t["fix_unknown"])
    return t["and"].join(t[f"fix_{what}"] for what in row["varies"] if f"fix_{what}" in t)


def _domains(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> list[dict[str, Any]]:
    """One line a domain: what it adds, and the rule that carries it."""
    return [
        {
            "name": t.get(row["domain"], row["domain"]),
            "contribution": row["contribution"],
            "weight": row["weight"],
            "score": row["score"],
            "rule": row["rule"],
            "title": row[f"title_{lang}"],
            "fact": t["and"].join(_fact(k, v, lang, t) for k, v in row["facts"].items()),
        }
        for row in annex["domains"]
    ]


def _settings(params: Mapping[str, Any], t: Mapping[str, str]) -> str:
    epsilon = float(params["target_epsilon"])
    shown = t["no_dp"] if math.isinf(epsilon) else f"{t['epsilon']} {number(epsilon)}"
    halvings = params.get("batch_halvings", 0)
    halved = f" · {t['halvings']} {halvings}" if halvings else ""
    return f"{shown} · {t['masking']} L{params['masking_level']} · {t['depth']} {params['adapted_layers']}{halved}"


def _front(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[dict[str, Any]]:
    """The front and what other weights would put on it, most accurate first; the status quo above all."""
    chosen = annex["point"]["number"]
    shown = [row for row in annex["front"] if row["on_front"] or row["kept"] or row["number"] == chosen]
    out = [
        {
            "name": f"{_called(row['number'], annex, t)}{' · ' + t['shown_here'] if row['number'] == chosen else ''}",
            "css": "chosen" if row["number"] == chosen else "",
            "settings": _settings(row["params"], t),
            "kept": f"{100 * row['kept']:.0f} %",
            "majority": _majority(row.get("majority")),
            **{short: _pm(row[long]) for short, long in _SHORT.items()},
        }
        for row in sorted(shown, key=lambda row: -row[ACCURACY][0])
    ]
    quo = annex["status_quo"]
    if quo:
        told = {s: _pm([quo["objectives"][n]["value"], quo["objectives"][n]["stderr"]]) for s, n in _SHORT.items()}
        settings = _settings(quo["params"], t)
        measured = quo["extras"].get(MAJORITY, {})
        majority = _majority([measured["value"], measured["stderr"]] if measured else None)
        quiet = {"name": t["status_quo"], "css": "", "settings": settings, "kept": "–", "majority": majority}
        out.insert(0, quiet | told)
    return out


def _called(number: int, annex: Mapping[str, Any], t: Mapping[str, str]) -> str:
    return t["winner"] if annex["study"].get("alone") else str(number)


def _majority(measured: Sequence[Any] | None) -> str:
    """Return the majority baseline of a row, a dash where it was not told."""
    return "–" if measured is None else _pm(measured)


def _pm(measured: Sequence[Any]) -> str:
    value, error = float(measured[0]), float(measured[1])
    return f"{value:.3f} ± {error:.3f}" if error else f"{value:.3f}"


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
        out.append(t["why_better"].format(**{name: why["better"][long] for name, long in _SHORT.items()}))
    elif not point["on_front"]:
        out.append(t["why_off"].format(blocking=", ".join(point["blocking"]) or t["dominated"]))
    if why["against_status_quo"]:
        out.append(t["why_against"].format(**{k: f"{why['against_status_quo'][v]:+.3f}" for k, v in _SHORT.items()}))
    for other in why["alternatives"]:
        name = t["why_or"].format(number=other["number"], name=said(other["name"], t["lang"]))
        trade = t["and"].join(said(part, t["lang"]) for part in other["trade"].split("; ") if part)
        out.append(f"{name}{t['colon']}{trade}{t['stop']}" if trade else f"{name}{t['stop']}")
    kept = next(row["kept"] for row in annex["front"] if row["number"] == point["number"])
    out.append(t["why_weights"].format(n=annex["checks"]["weightings"], share=f"{100 * kept:.0f} %"))
    return out


_SHORT = {"accuracy": ACCURACY, "risk": RISK, "penalty": PENALTY}


def _risk(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> list[str]:
    point, checks = annex["point"], annex["checks"]
    advantage = point["extras"].get("advantage")  # beside an attribute, whose leakage may be the risk in its place
    found = Measurement.from_json(advantage or point["objectives"][RISK])
    out = [
        t["risk_line"].format(
            **interval(found), upper=f"{found.upper:.3f}", limit=number(annex["study"]["limits"]["max_risk"])
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
    if said_of := stated({"declare": annex.get("declared_not_measured", {})}):
        signed = annex["declared_not_measured"]
        out.append(t["declared_by"].format(said=said_of, signer=signed["signer"], date=signed["date"]))
    if annex["threat_model"]:
        out.append(t["threat"].format(threat=said(annex["threat_model"], lang)))
    return out


def _privacy(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[str]:
    point, search = annex["point"], annex["search"]
    unit = annex["data"].get("unit", "record")
    claim = point["claim"]
    told = (
        t["holds"]
        if claim == "holds"
        else t["withdrawn"].format(reason=said(claim.removeprefix("withdrawn because "), t["lang"]))
    )
    spent = point["extras"].get("epsilon_spent", {"value": "inf"})["value"]
    policy = str(search["policy"])
    by_policy = t[f"policy_{policy.split('(')[0]}"].format(
        policy=policy, label=search["label"], guaranteed=number(search["guaranteed_epsilon"])
    )
    return [
        t["trial_epsilon"].format(
            epsilon=number(spent), delta=f"{search['delta']:g}", unit=t.get(unit, unit), claim=told
        ),
        *_search_epsilon(search, t),
        by_policy,
        *([sentence(search["capped"], t)] if search.get("capped") else []),
        f"{t['anchor']}{t['colon']}{search['anchor'] or '–'}",
    ]


def _search_epsilon(search: Mapping[str, Any], t: Mapping[str, str]) -> list[str]:
    """Say what the search composes to; nothing where that would tell how many trials there were."""
    if search["composed_epsilon"] is None:
        return []
    composed, everything = (_composed(search[name], t) for name in ("composed_epsilon", "data_epsilon"))
    return [t["search_epsilon"].format(epsilon=composed, delta=f"{search['delta']:g}", all=everything)]


def _composed(found: Any, t: Mapping[str, str]) -> str:
    """Say a composed epsilon; a bare number is of an older annex."""
    return said(str(ComposedEpsilon.from_json(found, delta=0.0)), t["lang"])


def _steps(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            **step,
            "name": said(step["name"].replace("_", " "), lang),
            "scope": t.get(step["scope"], step["scope"]),
            "why": said(_reason(step), lang),
        }
        for step in annex["data"].get("transformations", [])
    ]


def _reason(step: Mapping[str, Any]) -> str:
    """Return why a step was taken; of one that takes a fact as public or only refuses, what it does with what it read."""
    told = step["why"] if step.get("effect", "changes") == "changes" else step["detail"]
    return str(told or step["detail"])


def _dropped(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> str:
    found = annex["data"].get("dropped", {})
    return (
        t["and"].join(f"{fact_words(f'data.{reason}', lang)[0]} {n:,}" for reason, n in found.items() if n)
        or t["nothing"]
    )


def _difference(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> dict[str, Any] | None:
    """What changed, as lines of (name, before, after)."""
    found = annex["difference"]
    if found is None:
        return None
    rows: list[tuple[str, ...]] = [
        (t[name], f"{float(before):.3f}", f"{float(after):.3f}")
        for name, (before, after) in found["objectives"].items()
    ]
    if found["params"][0] != found["params"][1]:
        rows.insert(0, (t["changed_point"], *(_settings(p, t) for p in found["params"])))
    if found["composed_epsilon"][0] != found["composed_epsilon"][1] and None not in found["composed_epsilon"]:
        rows.append((t["changed_search"], *(_composed(e, t) for e in found["composed_epsilon"])))
    for change in found["rules"]:
        shown = [
            t["aside"].format(text=t[verdict], aside=t["and"].join(_fact(k, v, lang, t) for k, v in facts.items()))
            for verdict, facts in zip(change["verdict"], change["facts"], strict=True)
        ]
        rows.append((change["rule"], *shown))
    if found["sections"]:
        rows.append((t["changed_sections"], "", t["and"].join(t.get(name, name) for name in found["sections"])))
    for what in ("added", "removed"):
        if found[what]:
            rows.append((t[what], "", t["and"].join(found[what])))
    return {
        "line": t["previous"].format(made=found["made"], digest=found["previous"][:16]),
        "edited": not found["intact"],
        "rows": rows,
    }
