"""The ladder.

Nested, idempotent, blind to what is outside its spans, linear in hostile text, and right on known
cases.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.core.errors import InputError
from moo.core.measurement import Span
from moo.data.synthetic.identifiers import bank_card, resident_id
from moo.masking import apply, find_spans, mask, mask_many, probe

PIECES = st.sampled_from(
    [
        "13812345678",
        "138 1234 5678",
        "１３８１２３４５６７８",
        "一三八一二三四五六七八",
        "a@b.cn",
        "微信：abcde12",
        "订单号",
        "收货人：王小明",
        "2025年3月12日",
        "35岁",
        "258.00元",
        "北京市",
        "朝阳区建国路88号5栋",
        "糖尿病",
        "3岁的孩子",
        "iPad",
        "[MOBILE]",
        "<NUM>",
        "，",
        "。",
        " ",
        "\x00",
        "先生",
        "欧阳",
        "饕餮",
        "192.168.1.10",
        "京A12345",
        "QQ",
        "http://x.cn/a",
        "。。",
        "12345678901234567",
        "①②",
        "😀",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join)


def covered(text: str, level: int) -> set[int]:
    return {i for f in find_spans(text, level) for i in range(f.start, f.end)}


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_levels_are_nested(text: str) -> None:
    spans = [covered(text, level) for level in range(6)]
    assert not spans[0]
    for low, high in itertools.pairwise(spans):
        assert low <= high


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(0, 5))
def test_masking_twice_is_masking_once(text: str, level: int) -> None:
    once = mask(text, level)
    assert mask(once, level) == once


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(0, 5))
def test_text_outside_spans_is_untouched_and_spans_do_not_overlap(text: str, level: int) -> None:
    spans = find_spans(text, level)
    rest, at = mask(text, level), 0
    for span in spans:
        assert span.start >= at
        assert rest.startswith(text[at : span.start])
        rest = rest[span.start - at :]
        assert rest.startswith(span.replacement)
        rest, at = rest[len(span.replacement) :], span.end
    assert rest == text[at:]
    assert apply(text, spans) == mask(text, level)


@given(TEXTS, TEXTS)
@settings(max_examples=50, deadline=None)
def test_a_record_is_masked_alike_whatever_stands_beside_it(first: str, second: str) -> None:
    assert mask_many([first, second], 5)[0] == mask_many([first], 5)[0]


@pytest.mark.parametrize(
    ("text", "level", "expected"),
    [
        ("电话１３８１２３４５６７８。", 1, "电话[MOBILE]。"),
        ("打幺三八一二三四五六七八", 1, "打[MOBILE]"),
        ("call (212) 555-0123 now", 1, "call [MOBILE] now"),
        ("邮箱abc.d@qq.com谢谢", 1, "邮箱[EMAIL]谢谢"),
        ("订单号202512345678901234", 1, "订单号[ORDER_NUMBER]"),
        ("收货人：欧阳小明，", 1, "收货人：欧阳小明，"),
        ("收货人：欧阳小明，", 2, "收货人：[NAME]，"),
        ("寄到杭州市西湖区文三路12号3栋501室。", 2, "寄到[ADDRESS:杭州市]。"),
        ("今年34岁", 3, "今年[AGE:30-39]"),
        ("2025年3月12日下单", 3, "[DATE:2025Q1]下单"),
        ("花了258.00元", 3, "花了[AMOUNT:10^2]"),
        ("我有糖尿病", 3, "我有糖尿病"),
        ("我有糖尿病", 4, "我有[HEALTH]"),
        ("给3岁的孩子", 4, "给[AGE:0-9][MINOR]"),
        ("电池5000毫安", 4, "电池5000毫安"),
        ("电池5000毫安", 5, "电池<NUM>毫安"),
        ("三百块钱买的", 3, "[AMOUNT:10^2]买的"),
        ("三月十二号到", 3, "[DATE:Q1]到"),
        ("三十五岁", 3, "[AGE:30-39]"),
        ("从齐齐哈尔寄来", 3, "从[CITY:黑龙江]寄来"),
        ("June 23, 2024", 3, "[DATE:2024Q2]"),
        ("慢性肾炎", 4, "[HEALTH]"),
        ("跟刘婷一起买的", 2, "跟[NAME]一起买的"),
        ("刘婷没用，给刘婷退了", 2, "[NAME]没用，给[NAME]退了"),
        ("Thanks to Priya Raman for it", 2, "Thanks to [NAME] for it"),
        ("高血压患者慎用", 4, "[HEALTH]慎用"),
        ("见.com/thread-1368750-1-2.html", 1, "见[URL]"),
        ("投诉 # 271 153 317。", 1, "投诉 # [ORDER_NUMBER]。"),
        ("旁边的旅店83559989这家", 1, "旁边的旅店[LANDLINE]这家"),
        ("呜呜55555555", 1, "呜呜55555555"),
        ("销量83559989件", 1, "销量83559989件"),
        ("师傅阚砚装的", 2, "师傅[NAME]装的"),
        ("店员鲜于棠很好", 2, "店员[NAME]很好"),
        ("找[TEL:13812345678]", 1, "找[TEL:[MOBILE]]"),
        ("[MOBILE:13812345678]", 1, "[MOBILE:[MOBILE]]"),
        ("［TEL：１３８１２３４５６７８］", 1, "［TEL：[MOBILE]］"),
        ("【13812345678】<13812345678>", 1, "【[MOBILE]】<[MOBILE]>"),
        ("[CQ:at,qq=123456]谢谢", 1, "[CQ:at,qq=[QQ]]谢谢"),
        ("[NAME:王小明]", 2, "[NAME:[NAME]]"),
        ("[ADDRESS:收货人王小明]", 2, "[ADDRESS:收货人[NAME]]"),
        ("[AGE:13812345670-13812345679]", 1, "[AGE:[MOBILE]-[MOBILE]]"),
        ("[AMOUNT:10^13812345678]", 1, "[AMOUNT:10^[MOBILE]]"),
        ("[NAME:0013812345678000]", 1, "[NAME:[ORDER_NUMBER]]"),
        ("[PHONE_13812345678]", 1, "[PHONE_[MOBILE]]"),
        ("138[NAME]1234[NAME]5678", 1, "[ORDER_NUMBER][NAME][ORDER_NUMBER][NAME][ORDER_NUMBER]"),
        ("寄到阳光花园小区3栋501室。", 2, "寄到[ADDRESS]。"),
    ],
)
def test_known_cases(text: str, level: int, expected: str) -> None:
    assert mask(text, level) == expected


@pytest.mark.parametrize(
    "token",
    [
        "[NAME]",
        "[REDACTED]",
        "<NUM>",
        "<RARE>",
        "[AGE:30-39]",
        "[AGE:120-129]",
        "[DATE:2025Q1]",
        "[DATE:Q4]",
        "[AMOUNT:10^-1]",
        "[AMOUNT:0]",
        "[CITY:浙江]",
        "[ADDRESS:浙江省杭州市]",
        "[MOBILE:bcdfghjklmnpqrst]",
        "[PHONE_1]",
        "[PERSON2]",
        "<PHONE_NUMBER>",
        "<EMAIL_ADDRESS_12>",
        "[ORDER_NUMBER_123]",
    ],
)
def test_tokens_of_any_masker_are_left_alone_at_every_level(token: str) -> None:
    assert [mask(f"给{token}，", level) for level in range(5)] == [f"给{token}，"] * 5
    assert token in mask(f"给{token}，", 5)


@pytest.mark.parametrize(
    "token",
    ["[AGE:31-40]", "[AGE:130-139]", "[DATE:2199]", "[CITY:西湖]", "[ADDRESS:朝阳区]", "[PERSON_1234]", "［NAME］"],
)
def test_what_no_masker_writes_is_text_whatever_it_looks_like(token: str) -> None:
    assert token not in mask(token, 5)


def test_checksums_decide_where_there_is_no_cue_word() -> None:
    rng = np.random.default_rng(0)
    number = resident_id(rng, 1980)
    assert mask(f"号码{number}。", 1) == "号码[RESIDENT_ID]。"
    assert mask(f"卡{bank_card(rng)}。", 1) == "卡[BANK_CARD]。"


def test_own_fields_are_found_where_no_recogniser_would() -> None:
    assert mask("阿布都说东西收到", 2) == "阿布都说东西收到"
    assert mask("阿布都说东西收到", 2, fields={"name": "阿布都"}) == "[NAME]说东西收到"
    assert mask("阿布都说东西收到", 1, fields={"name": "阿布都"}) == "阿布都说东西收到"


def test_probe_says_what_is_left() -> None:
    text = "电话13812345678，今年34岁"
    gold = [[Span(start=2, end=13, type="mobile", level=1), Span(start=16, end=19, type="age", level=3)]]
    found = probe([text], gold, np.array([7]), 1)
    assert found.visible == ("[MOBILE]", "34岁")
    assert found.missed.tolist() == [False, True]
    assert found.users.tolist() == [7, 7]
    assert probe([text], gold, np.array([7]), 3).visible == ("[MOBILE]", "[AGE:30-39]")


def test_a_level_off_the_ladder_is_refused() -> None:
    with pytest.raises(InputError, match="masking_level"):
        find_spans("text", 6)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("收货人：林林。请快点", "林林"),
        ("收货人：金玉英。", "金玉英"),
        ("麻烦转交给同事来兵。谢谢", "来兵"),
        ("联系人是我朋友冷娟。", "冷娟"),
        ("请送到楼下找杨梅先生，谢谢", "杨梅"),
    ],
)
def test_names_that_are_words_are_found_where_only_a_name_can_stand(text: str, name: str) -> None:
    start = text.index(name)
    assert (start, start + len(name)) in {(f.start, f.end) for f in find_spans(text, 2)}


@pytest.mark.parametrize(
    "text",
    [
        "问前台小姐能不能换房",
        "联系一位先生",
        "朋友开心。同事帮忙。",
        "收货人已经签收",
        "收货人：还没收到",
        "问门卫小姐",
        "越来越好",
        "前台戴眼镜的那位",
    ],
)
def test_words_are_no_names_where_nothing_says_so(text: str) -> None:
    assert not find_spans(text, 2)
