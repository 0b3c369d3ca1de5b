"""One version of the recognisers, one behaviour: what they mask in the shipped cases and in a text for each of them."""

import hashlib
import json

import pytest

from moo.masking import find_spans
from moo.masking.evaluation.cases import KINDS, load_cases
from moo.masking.normalisation import normalise
from moo.masking.preprocessing_card import LEXICONS, RECOGNISERS_VERSION, fingerprint
from moo.masking.recognisers import lexicon
from moo.masking.recognisers.quasi_identifiers import QUASI
from moo.masking.recognisers.structured import PATTERNS, Pattern

# Version -> SHA-256 of what is masked. Another digest is another masking: raise RECOGNISERS_VERSION and add its line.
BEHAVIOUR = {1: "937a7566711bde841eebc34ef0f2c4967538118568dde20e54bb5ab0a8425b5b"}
# one text or more for each pattern that no shipped case has
TEXTS = (
    "见.com/item/12345.html",
    "连到fe80::1ff:fe23:4567:890a看看",
    "设备550e8400-e29b-41d4-a716-446655440000",
    "MAC 00:1A:2B:3C:4D:5E 连不上",
    "tracking number 1234567890123",
    "手机490154203237518不对，换成356938035643809",
    "wxid_ab12cd34ef",
    "# 1234 5678 90",
    "202511123456是我的订单",
    "昵称：小鱼儿爱吃糖",
    "旺旺小鱼儿",
    "@小鱼儿ab 看这里",
    "十二月初三日到的，十月二十五号退的",
    "12/11/2025 又 25.12.2024",
    "on March 3rd, 2024 it came",
    "on 3rd of March, 2024 it came",
    "I am 34 years old",
    "三十四岁，花了三十块钱",
    "¥199一件，$19.99 each",
    "usd 1,234.50 was paid",
    "邮编100085，zip code 94107-1234",
    "100085的邮编",
    "flat in SW1A 1AA",
    "Austin, TX 78701",
    "31.2304, 121.4737",
    "北纬31.2304°,东经121.4737°",
    "3岁的孩子，八个月的宝宝",
    "上小学的儿子",
    "my seven years old son",
    "little boy of ours",
    "找王先生，交给他老公阿布都",
    "阿依古丽买的",
    "高血压患者，信佛教",
    "She is diabetic and Muslim",
    "张三 and John Smith live at 12 Oak Street, Springfield",
    "北京市朝阳区建国路88号5栋，13812345678，2025年3月12日，34岁，199元",
)


def _texts() -> list[str]:
    return [*(case.text for kind in KINDS for case in load_cases(kind)), *TEXTS]


def _matches(pattern: Pattern, text: str) -> bool:
    group = min(1, pattern.regex.groups)
    return any(pattern.check is None or pattern.check(m.group(group)) for m in pattern.regex.finditer(text))


def test_what_is_masked_belongs_to_the_version_of_the_recognisers() -> None:
    digest = hashlib.sha256()
    for text in _texts():
        for level in range(1, 6):
            spans = [(s.start, s.end, s.type, s.level, s.replacement) for s in find_spans(text, level)]
            digest.update(json.dumps(spans).encode())
    assert BEHAVIOUR.get(RECOGNISERS_VERSION) == digest.hexdigest()
    assert max(BEHAVIOUR) == RECOGNISERS_VERSION


@pytest.mark.parametrize("pattern", [*PATTERNS, *QUASI], ids=lambda p: f"{p.type}: {p.why}")
def test_every_pattern_finds_something_in_the_pinned_texts(pattern: Pattern) -> None:
    assert any(_matches(pattern, normalise(text)) for text in _texts())


def test_a_changed_word_changes_the_fingerprint_and_the_layout_of_a_list_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists, before = {name: lexicon.load(name) for name in LEXICONS}, fingerprint()
    assert before.startswith(f"{RECOGNISERS_VERSION}-")
    wider = lists | {"names_en": lists["names_en"] | {"given": lists["names_en"]["given"].replace(" ", "\n  ")}}
    monkeypatch.setattr("moo.masking.preprocessing_card.load", wider.__getitem__)
    assert fingerprint() == before
    longer = lists | {"names_en": lists["names_en"] | {"given": lists["names_en"]["given"] + " Zebulon"}}
    monkeypatch.setattr("moo.masking.preprocessing_card.load", longer.__getitem__)
    assert fingerprint() != before
