"""Recognisers by words: names behind cues, addresses around house numbers, places, sensitive terms, rare words."""

import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources

from moo.entities import SENSITIVE

Hit = tuple[int, int, str]  # start, end, entity type

_HAN = "\u4e00-\u9fff"
_EDGE = r"(?=$|[\s\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f，。；：、！？（）】」》“”…~～])"
_HOUSE = re.compile(r"[0-9]{1,5}(?:号院|号楼|号|弄|栋|幢|单元|室|座|层|楼)")
_TAIL = re.compile(r"[A-Za-z0-9\-]{0,6}(?:号院|号楼|号|弄|栋|幢|单元|室|座|层|楼|房)")
_STREET = re.compile(r"[路街道巷弄村镇乡区县市省苑园里庄城]")
_NOT_ADDRESS = re.compile(r"[^\u4e00-\u9fffA-Za-z0-9\-·]")
_LEADS = ("寄到", "送到", "送至", "寄往", "发到", "发往", "地址", "住在", "住址", "家住", "位于", "我家在", "在")
_EN_STREET = re.compile(
    r"(?<![0-9A-Za-z])[0-9]{1,6}[A-Za-z]? (?:[A-Z][A-Za-z.']{0,20} ){1,4}?"
    r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Way|Court|Ct|Place|Pl|Boulevard|Blvd|[A-Z][a-z]{2,14})(?![A-Za-z])\.?"
    r"(?: (?:Apt|Suite|Unit)\.? [0-9A-Za-z]{1,6})?(?:, [A-Z][A-Za-z]{1,20}(?: [A-Z][A-Za-z]{1,20}){0,2})?"
)
_EN_NAME = re.compile(
    r"(?:[Dd]eliver(?:ed)? to|[Cc]ontact|[Mm]y name is|[Aa]sk for|[Cc]olleague|[Ff]riend|[Nn]eighbou?r|[Aa]ttn:?|[Rr]ecipient:?|"
    r"(?<![A-Za-z])(?:Mr|Mrs|Ms|Miss|Dr)\.?) ((?:(?:Mr|Mrs|Ms|Miss|Dr)\.? )?[A-Z][a-zA-Z'\-]{1,20}(?: (?:[A-Z]\.|[A-Z][a-zA-Z'\-]{1,20})(?![A-Za-z])){0,3})"
)
_CITY_CUE = re.compile(
    rf"(?:人在|来自|坐标|老家|住在|家在|出差到|搬到)([{_HAN}]{{1,6}}?(?:市|县|区|省|州)|[{_HAN}]{{2,3}})(?=$|[^{_HAN}]|的|，)"
)
_PLACES = [
    "北京",
    "天津",
    "上海",
    "重庆",
    "河北",
    "山西",
    "辽宁",
    "吉林",
    "黑龙江",
    "江苏",
    "浙江",
    "安徽",
    "福建",
    "江西",
    "山东",
    "河南",
    "湖北",
    "湖南",
    "广东",
    "海南",
    "四川",
    "贵州",
    "云南",
    "陕西",
    "甘肃",
    "青海",
    "台湾",
    "内蒙古",
    "广西",
    "西藏",
    "宁夏",
    "新疆",
    "香港",
    "澳门",
    "石家庄",
    "太原",
    "沈阳",
    "大连",
    "长春",
    "哈尔滨",
    "南京",
    "苏州",
    "无锡",
    "常州",
    "杭州",
    "宁波",
    "温州",
    "合肥",
    "福州",
    "厦门",
    "泉州",
    "南昌",
    "济南",
    "青岛",
    "烟台",
    "郑州",
    "洛阳",
    "武汉",
    "长沙",
    "广州",
    "深圳",
    "珠海",
    "佛山",
    "东莞",
    "惠州",
    "中山",
    "海口",
    "三亚",
    "成都",
    "绵阳",
    "贵阳",
    "昆明",
    "大理",
    "丽江",
    "西安",
    "兰州",
    "西宁",
    "银川",
    "乌鲁木齐",
    "呼和浩特",
    "南宁",
    "桂林",
    "拉萨",
    "徐州",
    "南通",
    "扬州",
    "嘉兴",
    "绍兴",
    "金华",
    "台州",
    "唐山",
    "保定",
    "鞍山",
    "吉林市",
    "潍坊",
    "淄博",
    "临沂",
    "宜昌",
    "襄阳",
    "株洲",
    "湘潭",
]
_PLACE = re.compile("(?:" + "|".join(sorted(_PLACES, key=len, reverse=True)) + ")(?:市|省|自治区)?")


@lru_cache(maxsize=1)
def _name_patterns() -> tuple[tuple["re.Pattern[str]", ...], frozenset[str]]:
    listed = tomllib.loads((resources.files("moo.masking.lexicon") / "names_zh.toml").read_text(encoding="utf-8"))
    family = f"(?:{'|'.join(listed['compound'])}|[{listed['single']}])"
    before = "|".join(sorted(listed["before"], key=len, reverse=True))
    after = "|".join(sorted(listed["after"], key=len, reverse=True))
    name = rf"{family}[{_HAN}]{{1,2}}?"
    patterns = (
        re.compile(rf"(?:{before})[ ：:是叫]{{0,2}}({name})(?={after}|的|{_EDGE[3:-1]})"),
        re.compile(rf"(?<![{_HAN}])({name})(?:{after})"),
    )
    return patterns, frozenset(listed["not_names"])


@lru_cache(maxsize=2)
def _sensitive(language: str) -> "re.Pattern[str]":
    listed = tomllib.loads(
        (resources.files("moo.masking.lexicon") / f"sensitive_{language}.toml").read_text(encoding="utf-8")
    )
    parts = []
    for kind in sorted(SENSITIVE):
        terms = sorted(listed.get(kind, ()), key=len, reverse=True)
        if terms:
            joined = "|".join(map(re.escape, terms))
            parts.append(
                f"(?P<{kind}>{joined})" if language == "zh" else f"(?P<{kind}>(?<![A-Za-z])(?:{joined})(?![A-Za-z]))"
            )
    return re.compile("|".join(parts), re.IGNORECASE)


def names(text: str) -> Iterator[Hit]:
    """Names behind a cue word, or before a title."""
    patterns, not_names = _name_patterns()
    for pattern in patterns:
        for match in pattern.finditer(text):
            if match.group(1) in not_names:
                continue
            yield match.start(1), match.end(1), "name"
    for match in _EN_NAME.finditer(text):
        yield match.start(1), match.end(1), "name"


def addresses(text: str) -> Iterator[Hit]:
    """Street addresses: from a house number, outwards to both sides as far as an address can reach."""
    at = 0
    while house := _HOUSE.search(text, at):
        end = house.end()
        while (tail := _TAIL.match(text, end)) and tail.end() > end:
            end = tail.end()
        start = _left(text, house.start())
        at = end
        if _STREET.search(text, start, house.start()):
            yield start, end, "address"
    for match in _EN_STREET.finditer(text):
        yield match.start(), match.end(), "address"


def _left(text: str, end: int) -> int:
    window = max(0, end - 40)
    start = window
    for match in _NOT_ADDRESS.finditer(text, window, end):
        start = match.end()
    for lead in _LEADS:
        found = text.rfind(lead, start, end)
        if found >= 0:
            start = found + len(lead)
            break
    return start


def cities(text: str) -> Iterator[Hit]:
    """Provinces and large cities, and what stands behind words of origin."""
    for match in _PLACE.finditer(text):
        yield match.start(), match.end(), "city"
    for match in _CITY_CUE.finditer(text):
        yield match.start(1), match.end(1), "city"


def sensitive(text: str) -> Iterator[Hit]:
    """Terms of the versioned lists, in both languages."""
    for language in ("zh", "en"):
        for match in _sensitive(language).finditer(text):
            yield match.start(), match.end(), str(match.lastgroup)


@lru_cache(maxsize=1)
def _rare() -> "re.Pattern[str]":
    """Chinese characters outside the 3,755 of GB 2312 level 1, and Latin words of three letters or more."""
    common = bytes(
        b for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF) for b in (row, cell) if (row, cell) < (0xD7, 0xFA)
    )
    listed = "".join(sorted(common.decode("gb2312")))
    return re.compile(rf"[^\W\d_{listed}a-zA-Z]+|[A-Za-z]{{3,}}")


def rare(text: str) -> Iterator[Hit]:
    """What is outside the public vocabulary: national standard characters, and no Latin words but those of one or two letters."""
    for match in _rare().finditer(text):
        yield match.start(), match.end(), "rare"


_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


def digits(text: str) -> Iterator[Hit]:
    for match in _DIGITS.finditer(text):
        yield match.start(), match.end(), "digits"
