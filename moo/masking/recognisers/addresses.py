"""Recognisers of street addresses, found outwards from a house number, and of cities."""

import re
from collections.abc import Iterator
from functools import lru_cache

from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import load

_HAN = "\u4e00-\u9fff"
# characters of an address before its house number, at most
_REACH = 40
_UNIT = "(?:号院|号楼|号|弄|栋|幢|单元|室|座|层|楼|组)"
_HOUSE = re.compile(
    rf"""
    [0-9A-Za-z](?<![0-9A-Za-z].)
    (?:[0-9]{{0,4}}(?:-[0-9]{{1,4}}){{0,2}}{_UNIT}|[0-9]{{0,2}}(?:-[0-9]{{1,4}}){{2,3}}(?![0-9])|[0-9]{{0,2}}\#)
    """,
    re.VERBOSE,
)
_MORE = re.compile(
    rf"""
    [{_HAN}·]{{0,10}}?[0-9A-Za-z]{{1,5}}(?:-[0-9]{{1,4}}){{0,2}}{_UNIT}
    |[ \-]?[0-9A-Za-z]{{0,1}}[0-9]{{2,4}}(?:室|房)?(?![0-9])
    |[东西南北]?(?:户|室|门|房|侧)
    """,
    re.VERBOSE,
)
_PLACE = re.compile(
    r"""
    [路街道巷弄村镇乡区县市省州苑园庄城寓厦场湾居府庭坊屯寨湖院港旗盟]
    |胡同|中心|碧桂|家属|幸福里|新里|[一-龥]里(?=[0-9])
    """,
    re.VERBOSE,
)
_HOUSE_AND_ROOM = re.compile(r"[0-9A-Za-z]{1,4}(?:号楼|栋|幢|座)(?:[0-9A-Za-z]{1,4}(?:单元|室|层|楼|号)|[0-9]{3,4})")
_NOT_ADDRESS = re.compile(rf"[^{_HAN}A-Za-z0-9\-·]")
_LEAD = re.compile(
    r"""
    寄到|送到|送至|寄往|发到|发往|地址|住在|住址|家住|位于|我家在|新址|改成|请送|请寄|门店
    |是|到|在|住|至|往|从
    """,
    re.VERBOSE,
)
_REGIONS = re.compile(rf"[{_HAN}]{{2,6}}(省|市)[{_HAN}]{{1,5}}(?:区|县)[{_HAN}]{{1,10}}?(?:路|街|大道|镇|乡|村)")
_CODE = r"(?:,?[ ](?:[A-Z]{2}[ ][0-9]{5}(?:-[0-9]{4})?|[A-Z]{1,2}[0-9][0-9A-Z]?[ ]?[0-9][A-Z]{2}))"


@lru_cache(maxsize=1)
def _english() -> "re.Pattern[str]":
    """Return the pattern of an English address: unit, number, street, unit, town, postcode; or a post box."""
    words = load("streets_en")
    kinds = "|".join(sorted(words["kinds"].split(), key=len, reverse=True))
    units = "|".join(words["units"].split())
    return re.compile(
        rf"""
        (?:(?<![A-Za-z])(?:{units})\.?[ ][0-9A-Za-z]{{1,5}},[ ]?)?
        [0-9](?<![0-9A-Za-z][0-9])[0-9]{{0,5}}[A-Za-z]?[ ]
        (?:[NSEW]\.?[ ])?(?:[A-Z][A-Za-z.'\-]{{0,20}}[ ]){{0,3}}
        (?:(?:{kinds})s?(?![A-Za-z])\.?|[A-Z][A-Za-z]{{1,20}}(?=,?[ ](?:{units})\.?[ ]?\#?[0-9]))
        (?:,?[ ](?:{units})\.?[ ]?\#?(?:[0-9][0-9A-Za-z\-]{{0,5}}|[A-Z])(?![0-9A-Za-z])|,?[ ]\#[0-9]{{1,5}})?
        (?:,[ ][A-Z][A-Za-z]{{1,20}}(?:[ ][A-Z][a-z]{{1,20}}){{0,2}})?
        {_CODE}?
        |(?:P\.?O\.?[ ]?Box|Post[ ]Box)[ ][0-9]{{1,6}}
        """,
        re.VERBOSE,
    )


@lru_cache(maxsize=1)
def street_keys() -> frozenset[str]:
    """Return the first two letters of the kinds of streets, of units and of "box"; an English address holds one."""
    words = load("streets_en")
    return frozenset(word[:2].lower() for word in [*words["kinds"].split(), *words["units"].split(), "box"])


@listed
def addresses(text: str) -> Iterator[Hit]:
    """Yield Chinese street addresses: from a house number, outwards to both sides as far as an address can reach."""
    at = 0
    while house := _HOUSE.search(text, at):
        end = house.end()
        while (more := _MORE.match(text, end)) and more.end() > end:
            end = more.end()
        start = _start_of_address(text, max(at, house.start() - _REACH), house.start())
        at = end
        if _PLACE.search(text, start, house.start() + 1) or _HOUSE_AND_ROOM.match(text, house.start()):
            yield start, end, "address", "house number behind a street or place"
    for match in _REGIONS.finditer(text) if "省" in text or "市" in text else ():
        yield (
            _start_of_address(text, match.start(), match.end(1)),
            match.end(),
            "address",
            "region, district and street",
        )


@listed
def english_addresses(text: str) -> Iterator[Hit]:
    """Yield English addresses (a number, capitalised words and a kind of street) and post boxes."""
    for match in _english().finditer(text):
        yield match.start(), match.end(), "address", "house number and kind of street"


def _start_of_address(text: str, low: int, end: int) -> int:
    """Return the start of an address before its house number: behind the last mark, or behind a word such as 住在."""
    start = low
    for match in _NOT_ADDRESS.finditer(text, low, end):
        start = match.end()
    place = _PLACE.search(text, start + 1, end)
    for match in _LEAD.finditer(text, start, place.start() - 1 if place else end):
        start = match.end()
    return start


@lru_cache(maxsize=1)
def _cities() -> tuple["re.Pattern[str]", "re.Pattern[str]", frozenset[str]]:
    """Return the pattern of listed places, that of unlisted cities, and the words that only end like a city."""
    words = load("places_zh")
    known = [*words["provinces"], *(c for cities in words["provinces"].values() for c in cities)]
    before = "|".join(sorted(words["before"], key=len, reverse=True))
    return (
        re.compile(f"(?:{'|'.join(sorted(known, key=len, reverse=True))})(?:市|省|自治区|自治州|县|区)?"),
        re.compile(
            rf"""
            (?:{before})([{_HAN}]{{1,4}}?(?:市|县|州))(?!场|民|面|价|区)
            |(?<![{_HAN}])([{_HAN}]{{1,2}}(?:市|县))(?!场|民|面|价|区)
            """,
            re.VERBOSE,
        ),
        frozenset(words["not_cities"]),
    )


@lru_cache(maxsize=1)
def city_keys() -> frozenset[str]:
    """Return the first two characters of listed places, and the endings of cities; a text with a city holds one."""
    return frozenset(name[:2] for name in provinces()) | frozenset("市县州")


ADDRESS_KEYS = frozenset("号弄栋幢单室座层楼组#-区县")


@listed
def cities(text: str) -> Iterator[Hit]:
    """Yield listed provinces and cities, and words that end like a city behind a word of place."""
    known, behind, not_cities = _cities()
    for match in known.finditer(text):
        yield match.start(), match.end(), "city", "name of a place"
    if "市" in text or "县" in text or "州" in text:
        for match in behind.finditer(text):
            group = 1 if match.group(1) else 2
            if match.group(group)[-2:] not in not_cities:
                yield match.start(group), match.end(group), "city", "behind a word of place"


@lru_cache(maxsize=1)
def provinces() -> dict[str, str]:
    """Return city or province -> its province."""
    listed = load("places_zh")["provinces"]
    return {p: p for p in listed} | {c.removesuffix("市"): p for p, cities in listed.items() for c in cities}


@lru_cache(maxsize=1)
def region_pattern() -> str:
    """Return a regular expression for a listed province, a listed city, or both, with their suffixes."""
    listed = load("places_zh")["provinces"]
    cities = sorted((c.removesuffix("市") for cities in listed.values() for c in cities), key=len, reverse=True)
    province = rf"(?:{'|'.join(listed)})(?:省|市|(?:壮族|回族|维吾尔)?自治区)?"
    city = rf"(?:{'|'.join(cities)})(?:市|地区)?"
    return rf"(?:{province}(?:{city})?|{city})"


@lru_cache(maxsize=1)
def _region() -> "re.Pattern[str]":
    return re.compile(region_pattern())


def region(address: str) -> str:
    """Return the listed province and city at the start of an address, as written there; empty without them."""
    match = _region().match(address)
    return match.group() if match else ""
