"""Facts of the data in the report: origin, licence, counts, steps of preparation, declarations."""

from collections.abc import Mapping
from typing import Any

from moo.report.sections.texts import say
from moo.studies.results.result import StudyResult
from moo.studies.setup.legal_gates import stated


def data_facts(result: StudyResult, t: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return facts of the data, as label and lines."""
    data = result.about.get("data", {})
    if not data:
        return []

    def shown(text: str) -> str:
        return say(text, t)

    def counted(counts: Mapping[str, int]) -> str:
        return t["and"].join(f"{shown(name.replace('_', ' '))} {n:,}" for name, n in counts.items())

    steps = [
        t["aside"].format(text=shown(s["name"].replace("_", " ")), aside=shown(s["scope"]))
        + (t["colon"] + shown(s["detail"]) if s["detail"] else "")
        for s in data["transformations"]
    ]
    return [
        (t["data_name"], [data["name"]]),
        (t["declaration"], [shown(data["declaration"])]),
        (t["licence"], [shown(data["licence"])]),
        (t["unit"], [shown(data["unit"])]),
        (t["records"], [counted(data["records"]) or t["not_published"]]),
        (t["dropped"], [counted(data["dropped"]) or ("0" if data["records"] else t["not_published"])]),
        (t["transformations"], steps),
        *_declared(result.spec, t),
        (t["threat"], [shown(result.about["threat_model"])]),
        (t["engine"], [t[f"engine_{result.about.get('engine', 'bank')}"]]),
    ]


def _declared(spec: Mapping[str, Any], t: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return gates that were not judged, and declared facts, as label and lines."""
    out = [] if spec.get("gates", True) else [(t["gates"], [t["no_gate"]])]
    if facts := stated(spec):
        signed = spec["declare"]
        line = t["declared_by"].format(said=say(facts, t), signer=signed["signer"], date=signed["date"])
        out.append((t["declared"], [line]))
    return out
