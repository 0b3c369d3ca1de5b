"""Random Unicode and hostile text: the ladder's promises hold, and the work grows no faster than the text."""

import itertools
import random
import sys
import time
from collections.abc import Iterator

import pytest

from moo.masking import Found, apply, find_spans, mask

N_RANDOM = 10_000
PIECES = [
    "13812345678",
    "１３８",
    "一三八一二三四",
    "a@b.cn",
    "微信",
    "：abcde12",
    "订单号",
    "收货人",
    "王小明",
    "刘婷",
    "2025年3月12日",
    "35岁",
    "元",
    "北京市",
    "朝阳区建国路88号",
    "5栋",
    "糖尿病",
    "的孩子",
    "[MOBILE]",
    "[ADDRESS:杭州市]",
    "<NUM>",
    "[REDACTED]",
    "[TEL:",
    "]",
    "［",
    "[PHONE_1]",
    "1[NAME]3800",
    "，",
    "。",
    " ",
    "\x00",
    "先生",
    "欧阳",
    "饕餮",
    "1.2.3.4",
    "京A12345",
    "QQ",
    "http://",
    "@",
    "John Smith",
    "Mr. ",
    "12 Oak Street",
    "diabetes",
    "$",
    "-",
    ".",
    "(",
    "\u200b",
    "😀",
    "é",
    "ß",
    "İ",
    "ﬁ",
    "١٢",
    "①",
]


def random_texts(n: int, seed: int) -> Iterator[str]:
    """Half of pieces that recognisers look for, half of any code points of Unicode (no surrogates)."""
    rng = random.Random(seed)
    for i in range(n):
        size = rng.randint(0, 14)
        if i % 2:
            yield "".join(rng.choice(PIECES) for _ in range(size))
        else:
            points = (
                rng.choice((rng.randrange(0x250), rng.randrange(0x4E00, 0x9FFF), rng.randrange(sys.maxunicode)))
                for _ in range(size)
            )
            yield "".join(chr(p) for p in points if not 0xD800 <= p <= 0xDFFF) + rng.choice(PIECES)


def covered(spans: list[Found]) -> set[int]:
    return {i for f in spans for i in range(f.start, f.end)}


def check(text: str) -> None:
    spans = [find_spans(text, level) for level in range(6)]
    assert not spans[0]
    for low, high in itertools.pairwise(map(covered, spans)):
        assert low <= high
    for level, found in enumerate(spans):
        once, at = apply(text, found), 0
        for span in found:
            assert at <= span.start < span.end <= len(text)
            at = span.end
        assert mask(once, level) == once
        kept = [
            text[a:b] for a, b in itertools.pairwise([0, *(x for f in found for x in (f.start, f.end)), len(text)])
        ][::2]
        assert (
            "".join(
                itertools.chain.from_iterable(itertools.zip_longest(kept, [f.replacement for f in found], fillvalue=""))
            )
            == once
        )


def test_two_thousand_random_texts_are_nested_idempotent_and_untouched_outside() -> None:
    for text in random_texts(2000, seed=1):
        check(text)


@pytest.mark.slow
def test_ten_thousand_random_texts_are_nested_idempotent_and_untouched_outside() -> None:
    for text in random_texts(N_RANDOM, seed=2):
        check(text)


UNITS = [
    "1",
    "a",
    "1 ",
    "1-",
    "a@",
    "1.",
    "号",
    "市",
    "路1号",
    "先生",
    "微信",
    "http://",
    "王",
    "[A",
    "20251",
    "１",
    "一",
    "地址",
    "www.",
    "王小明",
    "联系人",
    "John ",
    "1 A St, ",
    "a.com",
    "0-",
    "(1",
    "+86",
    "q",
    "一百",
    "3岁",
    ":a",
    "张三说",
    "12月",
    "中国人民路",
    "O0l",
    "A1-",
    "vx",
    "\x00a",
    "@a",
    "1[NAME]",
    "[AGE:1",
    "[ADDRESS:浙江",
]


def work(unit: str, characters: int) -> float:
    """Processor time for a text of so many characters, the least of three."""
    text = unit * (characters // len(unit))

    def once() -> float:
        started = time.process_time()
        find_spans(text, 5)
        return time.process_time() - started

    return min(once() for _ in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_no_pattern_takes_super_linear_work_on_hostile_text(unit: str) -> None:
    find_spans(unit, 5)
    short, long = work(unit, 3000), work(unit, 12_000)
    assert long < 9 * max(short, 2e-3)  # linear is 4, quadratic is 16


def test_a_text_of_ninety_thousand_characters_is_masked_whole() -> None:
    text = "收货人：王小明，电话13812345678，" * 4_000
    assert mask(text, 2) == "收货人：[NAME]，电话[MOBILE]，" * 4_000
