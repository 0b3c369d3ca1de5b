"""A dossier: every organisational gate met, broken and unknown; every unfit line named."""

import hashlib
from datetime import date
from pathlib import Path

import pytest

from moo.core.errors import InputError
from moo.data.legal.dossier import Dossier, load_dossier
from moo.data.legal.dossier_facts import declared_facts
from moo.objectives.compliance import evaluate, load_rules
from tests.fixtures.dossiers import FULL, write_dossier

AS_OF, TODAY = date(2026, 11, 1), date(2026, 11, 25)
SPACE = {"target_epsilon": (0.5, 32.0), "masking_level": (0, 5)}


def load(folder: Path, text: str = FULL) -> Dossier:
    return load_dossier(write_dossier(folder, text), today=TODAY)


def test_a_full_dossier_meets_every_gate_of_the_organisation(tmp_path: Path) -> None:
    dossier = load(tmp_path)
    facts = declared_facts(dossier, as_of=AS_OF, space=SPACE)
    assert facts.pop("declared.audit_age_days") == 245.0
    assert set(facts.values()) == {0.0}
    report = evaluate(declared_facts(dossier, as_of=AS_OF, space=SPACE), load_rules(), stages=("release",))
    assert len(report.gates) == 9
    assert set(report.gates.values()) == {0.0}
    assert dossier.collection[0]["how_often"] == "with each order"
    assert dossier.legal_tags == {"frequent_buyer"}
    assert dossier.purposes_by_notice == {"3": {"service", "model_training"}}


def test_without_a_dossier_nothing_is_assessed() -> None:
    facts = declared_facts(None, as_of=AS_OF)
    assert set(facts.values()) == {None}
    report = evaluate(facts, load_rules(), stages=("release",))
    assert len(report.not_assessed) == 9


GONE = {
    "G08": "source",
    "G09": "[notice",
    "G10": "transfer",
    "G11": "processors",
    "G12": "assessment",
    "G13": "encryption",
    "G15": "audit",
    "G16": "options",
}


@pytest.mark.parametrize("rule", sorted(GONE))
def test_a_missing_section_is_unknown(rule: str, tmp_path: Path) -> None:
    blocks = [b for b in FULL.split("\n\n") if not b.lstrip("[").startswith(GONE[rule].lstrip("["))]
    facts = declared_facts(load(tmp_path, "\n\n".join(blocks)), as_of=AS_OF, space=SPACE)
    assert load_rules()[rule].judge(facts) == (1.0, "not assessed")


@pytest.mark.parametrize(
    ("rule", "old", "new", "shortfall"),
    [
        ("G08", 'snapshot = "00ff"', "", 0.5),
        ("G09", "in_force = 2025-06-01", "in_force = 2026-11-20", 1.0),
        ("G09", 'file = "notice.md"', "", 1.0),
        ("G10", 'compute = "CN"', 'compute = "US"', 0.5),
        ("G11", 'processors = "none"', '[[processor]]\nname = "cloud"', 1.0),
        ("G12", "dated = 2026-09-01", "dated = 2026-11-20", 0.5),  # after the study, and not kept for three years
        ("G12", "kept_until = 2029-09-01", "kept_until = 2029-08-31", 0.25),
        ("G12", "[0.1, 64]", "[0.1, 8]", 0.25),
        ("G12", 'file = "pia.md"', "", 0.25),
        ("G13", 'attested_by = "head of security"', 'attested_by = ""', 0.5),
        ("G14", 'log = "access.log"', 'log = "absent.log"', 0.5),
        ("G14", 'may = ["run studies"]', "may = []", 0.5),
        ("G15", "dated = 2026-03-01", "dated = 2024-03-01", 245 / 365),
        ("G16", "non_personal = true", "non_personal = false", 1.0),
    ],
)
def test_each_gate_is_broken_by_what_breaks_it(rule: str, old: str, new: str, shortfall: float, tmp_path: Path) -> None:
    assert old in FULL
    facts = declared_facts(load(tmp_path, FULL.replace(old, new)), as_of=AS_OF, space=SPACE)
    gates = evaluate(facts, load_rules(), stages=("release",)).gates
    assert gates[rule] == pytest.approx(shortfall)
    assert {k for k, v in gates.items() if v} == {rule}


def test_a_mechanism_and_a_contract_mend_the_gates(tmp_path: Path) -> None:
    text = FULL.replace('compute = "CN"', 'compute = "US"\nmechanism = "standard contract 12"')
    text = text.replace('processors = "none"', '[[processor]]\nname = "cloud"\ncontract = "C-7"')
    facts = declared_facts(load(tmp_path, text), as_of=AS_OF)
    assert (facts["declared.transfer_gap"], facts["declared.processor_gap"]) == (0.0, 0.0)


def test_documents_are_known_by_their_digest(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"notice.md").hexdigest()
    assert load(tmp_path, FULL.replace('file = "notice.md"', f'file = "notice.md"\ndigest = "{digest}"')).documented(
        "notice"
    )
    wrong = load(tmp_path, FULL.replace('file = "notice.md"', 'file = "notice.md"\ndigest = "00"'))
    with pytest.raises(InputError, match=rf"dossier\.toml:16: digest of notice.md must be {digest[:16]}"):
        wrong.documented("notice")
    absent = load(tmp_path, FULL.replace('file = "pia.md"', 'file = "nowhere.pdf"'))
    with pytest.raises(InputError, match=r"dossier\.toml:25: file must be in the folder of the dossier"):
        declared_facts(absent, as_of=AS_OF)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'why = "model_training"',
            'why = "model_training"\ncolour = 1',
            r":7: unknown key 'colour'; \[collection\] knows",
        ),
        ('why = "model_training"', "", r":3: \[collection\] misses 'why'"),
        ("[source]", "[sauce]", r":9: unknown section 'sauce'"),
        ("[audit]", "[[audit]]", r":42: section 'audit' must be written \[audit\]"),
        ("[[role]]", "[role]", r":34: section 'role' must be written \[\[role\]\]"),
        ("people = 2", 'people = "two"', r":37: people must be of type int"),
        (
            "dated = 2026-03-01",
            "dated = 2026-12-01",
            r":44: dated must not be after 2026-11-25, got 2026-12-01, which is in the future",
        ),
        ("in_force = 2025-06-01", "in_force = 2027-06-01", r":16: in_force must not be after 2026-11-25"),
        ("masking_level = [0, 5]", "masking_level = 5", r":28: covers must be \{ name = \[low, high\] \}"),
        ('processors = "none"', "processors = 0", r":1: processors must be \"none\" or \[\[processor\]\] tables"),
        ("[options]", "[options", r"the dossier must be TOML in UTF-8, but .*line 46"),
    ],
)
def test_an_unfit_line_is_refused_by_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=r"dossier\.toml" + (message if message[0] == ":" else ": " + message)):
        load(tmp_path, FULL.replace(old, new, 1))


def test_an_absent_dossier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a readable file"):
        load_dossier(tmp_path / "absent.toml")
