"""Rules of law and policy as data; penalty and gates as measurements."""

from typing import TYPE_CHECKING

from moo.core.lazy_names import lazy_names

_HOMES = {
    "DEFAULT_PACKS": "moo.objectives.compliance.loader",
    "CompliancePenalty": "moo.objectives.compliance.report",
    "ComplianceReport": "moo.objectives.compliance.report",
    "Rule": "moo.objectives.compliance.rule",
    "RuleBook": "moo.objectives.compliance.loader",
    "evaluate": "moo.objectives.compliance.report",
    "explain": "moo.objectives.compliance.report",
    "generation_facts": "moo.objectives.compliance.facts",
    "load_rules": "moo.objectives.compliance.loader",
    "masking_facts": "moo.objectives.compliance.facts",
    "privacy_facts": "moo.objectives.compliance.facts",
    "utility_facts": "moo.objectives.compliance.facts",
}

__all__ = [
    "DEFAULT_PACKS",
    "CompliancePenalty",
    "ComplianceReport",
    "Rule",
    "RuleBook",
    "evaluate",
    "explain",
    "generation_facts",
    "load_rules",
    "masking_facts",
    "privacy_facts",
    "utility_facts",
]

if TYPE_CHECKING:
    from moo.objectives.compliance.facts import generation_facts, masking_facts, privacy_facts, utility_facts
    from moo.objectives.compliance.loader import DEFAULT_PACKS, RuleBook, load_rules
    from moo.objectives.compliance.report import CompliancePenalty, ComplianceReport, evaluate, explain
    from moo.objectives.compliance.rule import Rule

__getattr__ = lazy_names(__name__, _HOMES)
