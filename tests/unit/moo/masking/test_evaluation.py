"""What evaluation counts, against numbers worked out by hand.

And where the masker stands on what it was not built from.
"""

import math

import pytest

from moo.core.errors import InputError
from moo.data.synthetic.free_wording import free_notes
from moo.data.synthetic.order_notes import synthetic_notes
from moo.masking.evaluation.cases import KINDS, load_cases, score_cases, unmark
from moo.masking.evaluation.evaluate import Evaluation, Score, evaluate


def score(evaluation: Evaluation, name: str) -> Score:
    return next(s for s in (*evaluation.groups, *evaluation.types) if s.name == name)


def test_counts_of_two_texts_are_those_worked_out_by_hand() -> None:
    first, gold_first = unmark("打⟦mobile|13812345678⟧，找阿布⟦name|阿布⟧")
    second, gold_second = unmark("卡6222021234567890128")  # masked, and in no gold
    found = evaluate([first, second], [gold_first, gold_second], 2, name="two")
    mobile, name, card, direct = (score(found, n) for n in ("mobile", "name", "bank_card", "direct"))
    assert (mobile.entities, mobile.missed, mobile.found, mobile.wrong) == (1, 0, 1, 0)
    assert (name.entities, name.missed, name.found) == (1, 1, 0)
    assert (card.entities, card.found, card.wrong) == (0, 1, 1)
    assert (direct.recall, direct.precision) == (0.5, 0.5)
    assert found.characters_masked == (11 + 19) / (len(first) + len(second))
    characters = first + second
    bits = {c: math.log2(len(characters) / characters.count(c)) for c in set(characters)}
    right = sum(bits[c] for c in "13812345678")
    wrong = sum(bits[c] for c in "6222021234567890128")
    assert direct.precision_bits == pytest.approx(right / (right + wrong))
    p, r = direct.precision_bits, 0.5
    assert direct.f2 == pytest.approx(5 * p * r / (4 * p + r))


def test_an_entity_is_found_only_if_every_mention_of_it_is() -> None:
    text, gold = unmark("打⟦mobile|13812345678⟧或者x9⟦mobile|13812345678⟧9")  # the second stands inside a longer number
    assert score(evaluate([text], [gold], 1), "mobile").entities == 1
    lower, gold = unmark("收货人：⟦name|阿布都⟧。东西⟦name|阿布都⟧说好")
    found = score(evaluate([lower], [gold], 2), "name")
    assert (found.entities, found.missed) == (1, 0)


def test_the_lower_bound_without_a_miss_is_that_of_the_rule_of_three() -> None:
    whole = Score(name="x", entities=3000, missed=0, found=3000, wrong=0, bits=1.0, wrong_bits=0.0)
    assert whole.recall_low == pytest.approx(0.05 ** (1 / 3000))
    assert 1 - whole.recall_low == pytest.approx(3 / 3000, rel=2e-3)
    none = Score(name="x", entities=5, missed=5, found=0, wrong=0, bits=0.0, wrong_bits=0.0)
    assert (none.recall, none.recall_low) == (0.0, 0.0)


def test_the_masker_never_sees_the_gold() -> None:
    text, gold = unmark("打⟦mobile|13812345678⟧")
    with_gold = evaluate([text], [gold], 1)
    without = evaluate([text], [()], 1)
    assert score(with_gold, "mobile").found == score(without, "mobile").found == 1
    assert score(without, "mobile").wrong == 1


@pytest.mark.parametrize("kind", KINDS)
def test_hard_cases_pass_nine_of_ten(kind: str) -> None:
    cases = load_cases(kind)
    assert len(cases) >= 20
    assert score_cases(cases) >= 0.9


def test_an_unknown_kind_or_type_of_a_case_is_refused() -> None:
    with pytest.raises(InputError, match="obfuscated"):
        load_cases("easy")
    with pytest.raises(InputError, match="resident_id"):
        unmark("⟦phone|1⟧")


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("draw", [synthetic_notes, free_notes])
def test_recall_and_precision_without_own_fields(draw, language: str) -> None:  # type: ignore[no-untyped-def]
    notes = draw(1500, seed=3, language=language)
    one, two = (evaluate(notes.texts, notes.gold, level) for level in (1, 2))
    assert score(one, "direct").recall_low >= 0.99
    assert score(two, "names and addresses").recall >= 0.95
    assert min(score(one, "all").precision, score(two, "all").precision) >= 0.95


def test_own_fields_raise_recall_and_never_lower_it() -> None:
    notes = free_notes(600, seed=5)
    without = score(evaluate(notes.texts, notes.gold, 2), "direct")
    own = score(evaluate(notes.texts, notes.gold, 2, fields=notes.fields), "direct")
    assert own.missed <= without.missed


def test_free_notes_name_mostly_third_persons_and_are_drawn_anew_by_seed() -> None:
    notes = free_notes(800, seed=1)
    named = [
        (t[s.start : s.end], f["name"])
        for t, spans, f in zip(notes.texts, notes.gold, notes.fields, strict=True)
        for s in spans
        if s.type == "name"
    ]
    assert sum(found != own for found, own in named) > 0.6 * len(named)
    assert notes.texts == free_notes(800, seed=1).texts != free_notes(800, seed=2).texts
