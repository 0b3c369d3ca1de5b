"""Rules of law and policy as data; penalty and gates as measurements."""

from moo.objectives.compliance.facts import generation_facts, masking_facts, privacy_facts, utility_facts
from moo.objectives.compliance.loader import DEFAULT_PACKS, RuleBook, load_rules
from moo.objectives.compliance.report import CompliancePenalty, ComplianceReport, evaluate, explain
from moo.objectives.compliance.rule import Rule

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
