"""The third objective: facts in; penalty, gates and a breakdown that adds up out."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moo.core.errors import InputError
from moo.core.evidence import TrialEvidence
from moo.core.measurement import Measurement, not_assessed, number_out
from moo.core.messages import Message, joined
from moo.core.trial_record import PENALTY
from moo.objectives.compliance.loader import DEFAULT_PACKS, RuleBook, load_rules
from moo.objectives.compliance.rule import RULE, Rule, Stage, Verdict
from moo.objectives.objective import Direction

Facts = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class ComplianceReport:
    """Verdicts of the rules on one trial.

    Attributes:
        penalty: In [0, 1]; the sum of `contribution` over the rows. Its note names what was not
            assessed.
        gates: Rule id -> shortfall in [0, 1]; 0 is met, 1 also where the evidence is unknown.
        contributions: One row a rule: "rule", "title_en", "title_zh", "kind", "domain", "score",
            "weight", "contribution", "verdict", "value", "article", "status", "as_of", "pack",
            "varies", "stage", "pia", and the "facts" that it read with the "digest" of rule and
            facts.
        notes: What dropped out, and where its weight went.
    """

    penalty: Measurement
    gates: Mapping[str, float]
    contributions: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    @property
    def not_assessed(self) -> tuple[str, ...]:
        return tuple(row["rule"] for row in self.contributions if row["verdict"] == "not assessed")


def evaluate(
    facts: Facts,
    packs: Sequence[str | Path] | RuleBook = DEFAULT_PACKS,
    *,
    applies: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
    stages: Sequence[Stage] = ("trial",),
) -> ComplianceReport:
    """Judge facts by the rules of the chosen packs.

    penalty = sum over domains of weight x the largest score in the domain. The maximum keeps one
    leak from counting twice; the sum keeps what is shown additive, and the whole monotone in every
    score.

    Args:
        facts: Namespaced numbers, e.g. {"privacy.epsilon_user": 8.0}; None, NaN and absence are
            "unknown".
        packs: Names or paths of packs, or rules that are loaded already.
        applies: Flags of the study, e.g. ("generative",), that switch on rules with `applies_if`.
        stages: Which rules are judged; the penalty's are the trial's.
        weights: Weight per domain, in place of the packs' own; normalised over the domains that
            apply.

    Raises:
        InputError: If a pack is unfit, a weight is missing or negative, or no applying domain has
            weight.
    """
    book = packs if isinstance(packs, RuleBook) else load_rules(packs)
    flags = frozenset(applies)
    rules = book.at(flags, *stages)
    judged = {r.id: r.judge(facts) for r in rules}
    graded = [r for r in rules if r.kind == "graded"]
    shares = share_out(book.weights if weights is None else weights, [r.domain for r in graded])
    carriers = _carriers(graded, judged)
    rows = tuple(_row(r, judged[r.id], facts, shares.get(r.domain, 0.0), carriers) for r in rules)
    unknown = [r.id for r in graded if judged[r.id][1] == "not assessed"]
    penalty = min(1.0, math.fsum(row["contribution"] for row in rows))
    return ComplianceReport(
        penalty=Measurement(value=penalty, note=not_assessed(joined(", ", unknown)).note if unknown else ""),
        gates={r.id: judged[r.id][0] for r in rules if r.kind == "gate"},
        contributions=rows,
        notes=_dropped(book, flags, stages, shares),
    )


def share_out(weights: Mapping[str, float], domains: Collection[str]) -> dict[str, float]:
    """Return the weights of the domains that apply, in proportion, so that they sum to 1.

    Raises:
        InputError: If a domain has no weight, a weight is negative, or all are 0.
    """
    wanted = sorted(set(domains))
    if not wanted:
        return {}
    for domain in wanted:
        if not weights.get(domain, -1.0) >= 0:
            raise InputError(
                "weights[{domain!r}] must be >= 0, got {weight!r}.", domain=domain, weight=weights.get(domain)
            )
    total = math.fsum(weights[d] for d in wanted)
    if total <= 0:
        raise InputError("weights must have one above 0 among {wanted}, got only 0.", wanted=wanted)
    return {d: weights[d] / total for d in wanted}


def _carriers(graded: Sequence[Rule], judged: Mapping[str, tuple[float, Verdict]]) -> set[str]:
    """Return the carrying rule of each domain: the largest score, the first id at a tie."""
    best: dict[str, str] = {}
    for rule in graded:
        if rule.domain not in best or judged[rule.id][0] > judged[best[rule.domain]][0]:
            best[rule.domain] = rule.id
    return set(best.values())


def _row(
    rule: Rule, judgement: tuple[float, Verdict], facts: Facts, weight: float, carriers: Collection[str]
) -> dict[str, Any]:
    score, verdict = judgement
    value = rule.value(facts)
    return {
        "rule": rule.id,
        "title_en": rule.title_en,
        "title_zh": rule.title_zh,
        "kind": rule.kind,
        "domain": rule.domain,
        "score": score,
        "weight": weight,
        "contribution": weight * score if rule.id in carriers else 0.0,
        "verdict": verdict,
        "value": None if value is None else number_out(float(value)),
        "article": rule.article,
        "status": rule.status,
        "as_of": rule.as_of,
        "pack": rule.pack,
        "varies": list(rule.varies),
        "stage": rule.stage,
        "pia": rule.pia,
        "facts": rule.read(facts),
        "digest": rule.digest(facts),
    }


def _dropped(
    book: RuleBook, flags: frozenset[str], stages: Sequence[Stage], shares: Mapping[str, float]
) -> tuple[str, ...]:
    absent = [r for r in book.rules if r.stage in stages and not book.applies(r, flags)]
    notes = [Message("{rule} does not apply: {why}", rule=r.id, why=_missing(r)) for r in absent]
    gone = sorted({r.domain for r in absent if r.kind == "graded"} - shares.keys())
    return (*notes, *(Message("the weight of {domain} is shared out among the other domains", domain=d) for d in gone))


def _missing(rule: Rule) -> str:
    if rule.applies_if.startswith(RULE):
        return Message("nor does {rule}", rule=rule.applies_if.removeprefix(RULE))
    return Message("the study is not {flag}", flag=rule.applies_if)


def explain(report: ComplianceReport) -> tuple[str, ...]:
    """Return one line per domain: contribution and carrying rule, the largest first."""
    return explain_rows(report.contributions)


def explain_rows(contributions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the same lines from a report's rows, as a trial keeps them."""
    rows = carriers_of(contributions)
    return tuple(_explained(row) for row in rows)


def _explained(row: Mapping[str, Any]) -> Message:
    names = ("domain", "contribution", "weight", "score", "rule", "article", "verdict")
    line = Message(
        "{domain}: {contribution:.3f} = {weight:.2f} x {score:.2f}, {rule} {title} ({article}): {verdict}",
        title=row["title_en"],
        **{name: row[name] for name in names},
    )
    if row["value"] is None:
        return line
    return Message("{line}, measured {value:.4g}", line=line, value=float(row["value"]))


def carriers_of(contributions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the carrying row of each domain, the largest contribution first."""
    rows = [row for row in contributions if row["kind"] == "graded"]
    domains = sorted({row["domain"] for row in rows})
    best = [max((r for r in rows if r["domain"] == d), key=lambda r: (r["contribution"], r["score"])) for d in domains]
    return sorted(best, key=lambda r: -r["contribution"])


@dataclass(frozen=True, kw_only=True)
class CompliancePenalty:
    """Return the third objective of a trial; the gates are constraints of `evaluate`'s report."""

    packs: tuple[str | Path, ...] = DEFAULT_PACKS
    applies: tuple[str, ...] = ()
    name: str = PENALTY
    direction: Direction = "minimize"
    unit: str = "weighted score in 0..1"

    def __call__(self, evidence: TrialEvidence) -> Measurement:
        return evaluate(evidence.facts, self.packs, applies=self.applies).penalty
