"""Rules from packs: extensions joined, conditions checked, errors with file and line."""

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from moo.core import validate
from moo.core.errors import InputError
from moo.core.messages import Message, joined
from moo.objectives.compliance.pack import BUILT_IN, Pack, read_pack
from moo.objectives.compliance.rule import MEASURED, OTHER_OBJECTIVE, RULE, SCORES, STATUSES, Excuse, Kind, Rule, Stage

DEFAULT_PACKS = ("pipl", "ecommerce", "gdpr", "house")

_EXTENSION_KEYS = {"id", "extends", "basis", "status", "source", "as_of"}
_NEEDED = {"id", "kind", "title_zh", "title_en", "basis", "status", "evidence", "score", "varies", "source", "as_of"}
_RULE_KEYS = _NEEDED | {"domain", "parameters", "applies_if", "unless", "fail_at", "stage", "pia"}


@dataclass(frozen=True, kw_only=True)
class RuleBook:
    """The rules of the chosen packs, one a id, and the weights of the penalty's domains."""

    rules: tuple[Rule, ...]
    weights: Mapping[str, float]

    def __getitem__(self, rule_id: str) -> Rule:
        for rule in self.rules:
            if rule.id == rule_id:
                return rule
        raise InputError(
            "rule must be one of {rules}, got {rule_id!r}.", rules=[r.id for r in self.rules], rule_id=rule_id
        )

    def applies(self, rule: Rule, flags: frozenset[str]) -> bool:
        """Return True if a rule applies to a study of these flags."""
        if rule.applies_if.startswith(RULE):
            return self.applies(self[rule.applies_if.removeprefix(RULE)], flags)
        return not rule.applies_if or rule.applies_if in flags

    def at(self, flags: Collection[str] = (), *stages: Stage) -> tuple[Rule, ...]:
        """Return the rules that apply, of the stages given; without any, of the trial."""
        chosen = stages or ("trial",)
        return tuple(r for r in self.rules if r.stage in chosen and self.applies(r, frozenset(flags)))


def load_rules(packs: Sequence[str | Path] = DEFAULT_PACKS) -> RuleBook:
    """Read, check and join packs.

    A rule of one pack may extend the rule of the same id of another: it adds its own articles to
    it, and applies alone, judged by the same numbers, where the other pack is not chosen.

    Args:
        packs: Names of built-in packs, or paths of a company's own files; the last that sets
            weights wins.

    Raises:
        InputError: With file and line: unknown or missing keys, an empty basis, a cycle of
            extensions, a domain without weight, evidence that belongs to the risk objective, two
            rules of one id.
    """
    chosen: dict[str, Pack] = {}
    for pack in map(read_pack, packs):
        if pack.name in chosen and pack.path != chosen[pack.name].path:
            template = "Pack {name} is in {path} as well; choose another name."
            pack.refuse(Message(template, name=pack.name, path=chosen[pack.name].path), key="pack")
        chosen[pack.name] = pack
    known = dict(chosen)
    joined: dict[str, Rule] = {}
    roots: dict[str, str] = {}
    for pack in chosen.values():
        for index, table in enumerate(pack.tables):
            rule, root = _resolve(pack, index, known, ())
            if rule.id in joined and roots[rule.id] != root:
                template = "Rule {rule} is in pack {pack} as well; choose another id."
                pack.refuse(Message(template, rule=rule.id, pack=roots[rule.id]), index, "id")
            joined[rule.id] = _join(joined[rule.id], rule) if rule.id in joined else rule
            roots[rule.id] = root
            if "extends" not in table and rule.id in joined and joined[rule.id].pack != pack.name:
                joined[rule.id] = replace(joined[rule.id], pack=pack.name, path=pack.path, line=rule.line)
    for rule in joined.values():
        _check_conditions(rule, joined, known[roots[rule.id]])
    weights = _weights(chosen, tuple(joined.values()))
    return RuleBook(rules=tuple(joined[i] for i in sorted(joined)), weights=weights)


def _check_conditions(rule: Rule, rules: Mapping[str, Rule], pack: Pack) -> None:
    """Check that `applies_if = "rule:ID"` ends at a known rule and never comes back."""
    index = next(i for i, table in enumerate(pack.tables) if table.get("id") == rule.id)
    seen = [rule.id]
    while rules[seen[-1]].applies_if.startswith(RULE):
        following = rules[seen[-1]].applies_if.removeprefix(RULE)
        if following not in rules:
            template = "{rule} applies where {condition} does, which no chosen pack has."
            pack.refuse(Message(template, rule=seen[-1], condition=following), index, "applies_if")
        if following in seen:
            chain = " -> ".join((*seen, following))
            template = "{rule} applies where rules apply that end in a cycle: {chain}."
            pack.refuse(Message(template, rule=rule.id, chain=chain), index, "applies_if")
        seen.append(following)


def _join(first: Rule, second: Rule) -> Rule:
    """Return the first rule with the second's articles, and the weaker of their statuses."""
    basis = first.basis + tuple(a for a in second.basis if a not in first.basis)
    return replace(first, basis=basis, status=max(first.status, second.status, key=STATUSES.index))


def _weights(packs: Mapping[str, Pack], rules: tuple[Rule, ...]) -> Mapping[str, float]:
    weights: Mapping[str, float] = read_pack("house").weights
    for pack in packs.values():
        weights = pack.weights or weights
    for rule in rules:
        if rule.kind == "graded" and rule.domain not in weights:
            raise InputError(
                "{path}:{line}: domain {domain!r} of {id} has no weight; add it to [weights].",
                path=rule.path,
                line=rule.line,
                domain=rule.domain,
                id=rule.id,
            )
    return weights


def _resolve(pack: Pack, index: int, known: dict[str, Pack], seen: tuple[str, ...]) -> tuple[Rule, str]:
    """Return the rule of a table with its inheritance, and the pack where its chain ends."""
    table = pack.tables[index]
    if "extends" not in table:
        return _rule(pack, index), pack.name
    _check_keys(pack, index, _EXTENSION_KEYS, _EXTENSION_KEYS)
    parent, rule_id = str(table["extends"]), table["id"]
    if parent in (*seen, pack.name):
        chain = " -> ".join((*seen, pack.name, parent))
        pack.refuse(Message("{rule} extends itself in a cycle: {chain}.", rule=rule_id, chain=chain), index, "extends")
    if parent not in known and parent not in BUILT_IN:
        template = "{rule} extends pack {parent!r}, which is neither built in nor chosen."
        pack.refuse(Message(template, rule=rule_id, parent=parent), index, "extends")
    base = known.setdefault(parent, read_pack(parent)) if parent not in known else known[parent]
    at = [i for i, t in enumerate(base.tables) if t.get("id") == rule_id]
    if not at:
        template = "{rule} extends pack {parent!r}, which has no rule of that id."
        pack.refuse(Message(template, rule=rule_id, parent=parent), index, "id")
    rule, root = _resolve(base, at[0], known, (*seen, pack.name))
    own = _texts(pack, index)
    return replace(rule, **own, pack=pack.name, path=pack.path, line=pack.line(index)), root


def _check_keys(pack: Pack, index: int, needed: set[str], allowed: set[str]) -> None:
    table = pack.tables[index]
    for key in sorted(table.keys() - allowed):
        known = Message("Unknown key {key!r}; a rule knows {known}.", key=key, known=sorted(allowed))
        pack.refuse(joined("", [known, validate.nearest(key, allowed)]), index, key)
    for key in sorted(needed - table.keys()):
        pack.refuse(Message("Rule {rule} misses {key!r}.", rule=table.get("id", "?"), key=key), index)


def _texts(pack: Pack, index: int) -> dict[str, Any]:
    """Return the fields of an extension: basis, status, source, as_of."""
    table = pack.tables[index]
    if not table["basis"]:
        template = "Rule {rule} needs an article in its basis; write the policy there if there is no law."
        pack.refuse(Message(template, rule=table["id"]), index, "basis")
    _check_choice(pack, index, "status", table["status"], STATUSES)
    if not isinstance(table["as_of"], datetime.date):
        pack.refuse(Message("as_of must be a date, got {value!r}.", value=table["as_of"]), index, "as_of")
    return {
        "basis": _strings(pack, index, "basis"),
        "status": table["status"],
        "source": str(table["source"]),
        "as_of": table["as_of"].isoformat(),
    }


def _check_choice(pack: Pack, index: int, key: str, value: object, known: Collection[str]) -> None:
    if value not in known:
        message = Message("{key} must be one of {known}, got {value!r}.", key=key, known=", ".join(known), value=value)
        pack.refuse(message, index, key)


def _strings(pack: Pack, index: int, key: str) -> tuple[str, ...]:
    value = pack.tables[index][key]
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
        pack.refuse(Message("{key} must be a list of texts, got {value!r}.", key=key, value=value), index, key)
    return tuple(value)


def _rule(pack: Pack, index: int) -> Rule:
    _check_keys(pack, index, _NEEDED, _RULE_KEYS)
    table = pack.tables[index]
    _check_choice(pack, index, "kind", table["kind"], get_args(Kind))
    if (table["kind"] == "graded") != ("domain" in table):
        pack.refuse(Message("A graded rule needs a domain, and another has none."), index, "domain")
    _check_choice(pack, index, "score", table["score"], SCORES)
    stage, pia = table.get("stage", "trial"), table.get("pia", 1 if table["kind"] == "gate" else 3)
    if stage not in get_args(Stage) or (table["kind"] == "graded" and stage != "trial"):
        template = "stage must be one of {known}, trial if graded, got {value!r}."
        pack.refuse(Message(template, known=", ".join(get_args(Stage)), value=stage), index, "stage")
    if pia not in (1, 2, 3):
        template = "pia must be 1, 2 or 3, a heading of PIPL article 56, got {value!r}."
        pack.refuse(Message(template, value=pia), index, "pia")
    low, high = _thresholds(pack, index)
    return Rule(
        **_texts(pack, index),
        id=table["id"],
        kind=table["kind"],
        title_zh=table["title_zh"],
        title_en=table["title_en"],
        evidence=_evidence(pack, index),
        score=table["score"],
        low=low,
        high=high,
        domain=table.get("domain", ""),
        applies_if=str(table.get("applies_if", "")),
        stage=stage,
        pia=pia,
        unless=_excuse(pack, index),
        fail_at=float(table.get("fail_at", 0.5)),
        varies=_strings(pack, index, "varies"),
        pack=pack.name,
        path=pack.path,
        line=pack.line(index),
    )


def _thresholds(pack: Pack, index: int) -> tuple[float, float]:
    """Return parameters low < high of a ramp (above 0 for lramp); (0, 1) for a share."""
    table = pack.tables[index]
    if table["score"] == "share":
        if "parameters" in table:
            pack.refuse(Message("A share has no parameters."), index, "parameters")
        return 0.0, 1.0
    found = table.get("parameters", {})
    if set(found) != {"low", "high"} or not all(isinstance(v, int | float) for v in found.values()):
        pack.refuse(Message("parameters must be {{ low, high }}, got {value!r}.", value=found), index, "parameters")
    if not found["low"] < found["high"] or (table["score"] == "lramp" and found["low"] <= 0):
        template = "parameters must have low < high (0 < low for lramp), got {value!r}."
        pack.refuse(Message(template, value=found), index, "parameters")
    return float(found["low"]), float(found["high"])


def _evidence(pack: Pack, index: int) -> tuple[str, ...]:
    keys = _strings(pack, index, "evidence")
    for key in keys:
        space = key.split(".")[0]
        if space in OTHER_OBJECTIVE:
            template = "Evidence {key!r} belongs to the risk objective and would count twice."
            pack.refuse(Message(template, key=key), index, "evidence")
        if space not in MEASURED or "." not in key:
            template = "evidence must be SPACE.NAME with SPACE one of {known}, got {key!r}."
            pack.refuse(Message(template, known=", ".join(MEASURED), key=key), index, "evidence")
    return keys


def _excuse(pack: Pack, index: int) -> Excuse | None:
    found = pack.tables[index].get("unless")
    if found is None:
        return None
    if set(found) != {"evidence", "at_least"} or pack.tables[index]["kind"] != "gate":
        template = "unless must be {{ evidence, at_least }} and belong to a gate, got {value!r}."
        pack.refuse(Message(template, value=found), index, "unless")
    return Excuse(evidence=str(found["evidence"]), at_least=float(found["at_least"]))
