"""Cost of a search in the report: epsilons, claims, guarantee, and what record-level DP means for a person."""

import math
from collections.abc import Mapping
from typing import Any

from moo.core.trial_record import TrialRecord
from moo.privacy.claims import HOLDS
from moo.privacy.composition import group_privacy
from moo.report.figures import epsilon_text
from moo.report.sections.texts import say, sentence
from moo.studies.results.result import StudyResult
from moo.studies.results.search_cost import SearchCost

# records of one person, as an example of what record-level DP means for people
_SEVERAL = 3


def cost_lines(result: StudyResult, t: Mapping[str, str]) -> dict[str, Any]:
    cost, chosen = result.cost, result.recommend().trial
    out: dict[str, Any] = {
        "line": ""
        if cost.composed_epsilon is None
        else t["cost_line"].format(epsilon=say(cost.composed_epsilon.text, t), delta=f"{cost.delta:g}"),
        "label": sentence(cost.label, t),
        "guarantee": ""
        if math.isinf(cost.guaranteed_epsilon)
        else t["guarantee"].format(
            epsilon=epsilon_text(cost.guaranteed_epsilon, t["no_dp"]), delta=f"{cost.delta:g}", policy=cost.policy
        ),
        "withdrawn": list(dict.fromkeys(_claim(r, t) for r in result.complete if r.claim != HOLDS)),
        "trial": "",
        "claim": "",
        "group": "",
        "data": _data_line(cost, t),
    }
    if chosen is not None:
        unit = result.about.get("data", {}).get("unit", "record")
        spent = epsilon_text(chosen.extras["epsilon_spent"].value, t["no_dp"])
        out["trial"] = t["trial_epsilon"].format(epsilon=spent, delta=f"{cost.delta:g}", unit=say(unit, t))
        out["claim"] = _claim(chosen, t)
        epsilon, delta = chosen.extras["epsilon_spent"].value, cost.delta
        most = result.about.get("data", {}).get("records_per_user", None if unit == "record" else 1)
        if most != 1 and math.isfinite(epsilon):
            several = group_privacy(epsilon, delta, most or _SEVERAL)
            out["group"] = t["group"].format(n=most or _SEVERAL, epsilon=f"{several[0]:.2f}", delta=f"{several[1]:.1g}")
            out["group"] += "" if most else t["group_unknown"]
    return out


def _claim(record: TrialRecord, t: Mapping[str, str]) -> str:
    return t["claim"].format(claim=say(record.claim, t))


def _data_line(cost: SearchCost, t: Mapping[str, str]) -> str:
    # without a number the whole hash is shown: it finds its entry by itself
    if cost.data_epsilon is None:
        return t["head_line"].format(anchor=cost.anchor)
    return t["data_line"].format(epsilon=say(cost.data_epsilon.text, t), anchor=cost.anchor[:24] or "–")
