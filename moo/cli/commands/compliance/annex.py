"""moo compliance annex: the evidence that an impact assessment asks for."""

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moo.cli.arguments import MANY, Commands, filled, whole
from moo.cli.console import out, say
from moo.cli.language import language, listed, spoken, words
from moo.core.messages import LANGUAGES

if TYPE_CHECKING:
    from moo.studies.results.result import StudyResult


def add(rules: Commands) -> None:
    """Add the command."""
    parser = rules.command(
        "annex", annex, "write the evidence that an impact assessment asks for, as JSON, HTML and PDF"
    )
    parser.add_argument("folder", metavar="DIR", help="folder of the study")
    parser.option("--trial", whole(0, MANY), metavar="N", help="point (default: the recommended one)")
    parser.option("--to", filled, metavar="DIR", help="folder to write to (default DIR/annex)")
    parser.add_argument(
        "--lang", nargs="+", choices=LANGUAGES, default=["en", "zh"], help="languages of the annex (default en zh)"
    )
    parser.add_argument(
        "--dossier", metavar="FILE", help="the company's declarations, judged today (default: the study's own)"
    )
    parser.add_argument(
        "--previous", metavar="FILE", help="annex.json to compare with (default: the one in the folder)"
    )
    parser.add_argument("--no-pdf", action="store_true", help="write no PDF, which takes a browser")


def annex(options: argparse.Namespace) -> int:
    """Write the annex and print its domains."""
    from moo.report.annex.content import annex_of
    from moo.report.annex.html import read_annex, save_annex
    from moo.report.pdf import find_browser
    from moo.studies.results.audit_report import load_audits
    from moo.studies.results.result import load_result

    result = load_result(options.folder)
    target = Path(options.to) if options.to else Path(options.folder) / "annex"
    earlier = options.previous or (target / "annex.json" if (target / "annex.json").is_file() else None)
    made = annex_of(
        result,
        trial=options.trial,
        declared=_declared(result, options.dossier) if options.dossier else None,
        previous=read_annex(earlier) if earlier else None,
        audits=load_audits(options.folder),
    )
    written = save_annex(made, target, langs=options.lang, pdf=not options.no_pdf)
    for row in made["domains"]:
        say(
            out,
            "{domain}: {contribution:.3f} = {weight:.2f} x {score:.2f}, {rule} {title}",
            **{key: row[key] for key in ("contribution", "weight", "score", "rule")},
            domain=spoken(row["domain"]),
            title=row[f"title_{language()}"],
        )
    missing = [row["rule"] for row in made["rules"] if row["verdict"] == "not assessed"]
    say(out, "Not assessed: {rules}.", rules=listed(missing) or words("nothing"))
    if not options.no_pdf and find_browser() is None:
        say(out, "No PDF: no Chromium was found; install one or set MOO_BROWSER.")
    say(out, "Written: {files}", files=", ".join(map(str, written)))
    return 0


def _declared(result: "StudyResult", path: str) -> dict[str, Any]:
    """Return a dossier's declarations, judged today."""
    from moo.data.legal.dossier import load_dossier
    from moo.data.legal.dossier_facts import declared_facts
    from moo.studies.setup.legal_gates import declaration

    dossier = load_dossier(path)
    facts = declared_facts(dossier, as_of=date.today(), space=result.spec.get("space", {}))
    flags = result.about.get("declared", {}).get("flags", result.spec.get("applies", ()))
    return declaration(dossier, facts, flags=flags)
