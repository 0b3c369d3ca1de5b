"""Recognisers by structure: numbers with checksums, handles behind cue words, dates, amounts.

Every pattern runs on normalised text (`moo.masking.normal`), has bounded repeats and an explicit boundary on both sides, so
it is linear in the text. `\\b` is not used: there is no word boundary between a Chinese character and a digit in Unicode.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import phonenumbers

_L, _R = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"
_GAP = r"[ \t：:=是为号码#.,，\-]{0,4}"  # what may stand between a cue word and its value
_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_TLD = r"(?:\.[A-Za-z0-9\-]{1,63}){1,4}"


@dataclass(frozen=True)
class Pattern:
    """One way in which a type of personal information is written.

    Attributes:
        type: Entity type.
        regex: Group 1, where there is one, is the mention; else the whole match.
        check: Of the mention's digits; None accepts every match.
        needs: Characters of which one must stand in the text, or none to be tried always: a cheap first test.
    """

    type: str
    regex: "re.Pattern[str]"
    check: Callable[[str], bool] | None = None
    needs: str = ""


def luhn(digits: str) -> bool:
    """Whether a number passes ISO/IEC 7812-1."""
    total = 0
    for i, d in enumerate(reversed(digits)):
        doubled = int(d) * (1 + i % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def resident_checksum(number: str) -> bool:
    """Whether an 18-character number passes GB 11643; the region is not looked up, since its table changes."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return "10X98765432"[sum(int(d) * w for d, w in zip(number, weights, strict=False)) % 11] == number[-1].upper()


def _card(text: str) -> bool:
    digits = re.sub(r"[^0-9]", "", text)
    return 16 <= len(digits) <= 19 and luhn(digits)


def _imei(text: str) -> bool:
    return luhn(text)


def _chinese_number(text: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, "CN"))
    except phonenumbers.NumberParseException:
        return False


def _p(kind: str, regex: str, check: Callable[[str], bool] | None = None, needs: str = "") -> Pattern:
    return Pattern(kind, re.compile(regex, re.IGNORECASE), check, needs)


_DIGIT = "0123456789"

# In order of trust: what stands earlier wins where two overlap.
PATTERNS: tuple[Pattern, ...] = (
    _p("url", r"(?:https?://|www\.)[A-Za-z0-9._~:/?#@!$&'()*+,;=%\-]{3,300}", needs="."),
    _p("email", rf"(?<![A-Za-z0-9._%+\-])([A-Za-z0-9._%+\-]{{1,64}}@[A-Za-z0-9\-]{{1,63}}{_TLD})", needs="@"),
    _p(
        "ip",
        r"(?<![0-9.])((?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9]))(?![0-9])(?!\.[0-9])",
        needs=".",
    ),
    _p("device_id", rf"{_L}([0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}){_R}", needs="-"),
    _p("device_id", rf"{_L}((?:[0-9a-f]{{2}}[:\-]){{5}}[0-9a-f]{{2}}){_R}", needs=":-"),
    _p("device_id", rf"(?:IMEI|设备号|设备码|device id){_GAP}([0-9A-Za-z\-]{{8,40}}){_R}"),
    _p(
        "resident_id",
        rf"{_L}([1-9][0-9]{{5}}(?:19|20)[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{{3}}[0-9x]){_R}",
        resident_checksum,
        _DIGIT,
    ),
    _p(
        "resident_id", rf"(?:身份证号?码?|实名认证|证件号码?|resident id){_GAP}([0-9]{{14,17}}[0-9x]){_R}", needs=_DIGIT
    ),
    _p(
        "order_number",
        rf"(?:订单编?号码?|单据号|流水号|交易号|order (?:number|no\.?|id)){_GAP}([0-9A-Za-z][0-9A-Za-z\-]{{5,31}}){_R}",
        needs=_DIGIT,
    ),
    _p(
        "tracking_number",
        rf"(?:(?:快递|运|物流|包裹)(?:单号|编号|单)|tracking (?:number|no\.?|id)){_GAP}([0-9A-Za-z]{{8,24}}){_R}",
        needs=_DIGIT,
    ),
    _p("tracking_number", rf"{_L}((?:SF|YTO?|JDV?|ZTO|STO|YD|EMS|1Z)[0-9A-Z]{{3}}[0-9]{{7,15}}){_R}", needs=_DIGIT),
    _p("mobile", r"(?<![0-9A-Za-z])((?:\+?86|0086)?[ \-]?1[3-9](?:[ \-]?[0-9]){9})(?![0-9A-Za-z])", needs=_DIGIT),
    _p(
        "mobile",
        r"(?<![0-9A-Za-z])(\+?1?[ \-.]?\(?[2-9][0-9]{2}\)[ \-.]?[2-9][0-9]{2}[ \-.][0-9]{4})(?![0-9])",
        needs=_DIGIT,
    ),
    _p("mobile", r"(?<![0-9A-Za-z])(\+?1?[ \-.]?[2-9][0-9]{2}[\-.][2-9][0-9]{2}[\-.][0-9]{4})(?![0-9])", needs=_DIGIT),
    _p(
        "landline",
        r"(?<![0-9A-Za-z])(\(?0[1-9][0-9]{1,2}\)?[ \-]?[2-9][0-9]{6,7})(?![0-9A-Za-z])",
        _chinese_number,
        needs=_DIGIT,
    ),
    _p(
        "landline",
        r"(?:座机|固话|电话|热线)" + _GAP + r"((?:[0-9]{3,4}[ \-]?)?[2-9][0-9]{6,7})(?![0-9A-Za-z])",
        needs=_DIGIT,
    ),
    _p("device_id", r"(?<![0-9A-Za-z])((?:35|86|99|01)[0-9]{13})(?![0-9A-Za-z])", _imei, _DIGIT),
    _p("bank_card", r"(?<![0-9A-Za-z])([2-6][0-9](?:[ \-]?[0-9]){14,17})(?![0-9A-Za-z])", _card, _DIGIT),
    _p(
        "bank_card",
        rf"(?:银行卡|信用卡|借记卡|储蓄卡|卡)(?:号码?)?{_GAP}([2-9](?:[ \-]?[0-9]){{14,18}})(?![0-9A-Za-z])",
        needs=_DIGIT,
    ),
    _p("passport", rf"(?:护照|港澳通行证|通行证|passport){_GAP}([A-Z]{{1,2}}[0-9]{{7,8}}){_R}", needs=_DIGIT),
    _p("passport", rf"{_L}([EGDSPH][0-9]{{8}}){_R}", needs=_DIGIT),
    _p("plate", rf"([{_PROVINCE}][A-HJ-NP-Z][·• ]?[A-HJ-NP-Z0-9]{{4,5}}[A-HJ-NP-Z0-9挂学警港澳]){_R}", needs=_DIGIT),
    _p(
        "wechat",
        rf"(?:微信号?|薇信|威信|weixin|wechat|(?<![A-Za-z])v[x信]|(?<![A-Za-z])wx){_GAP}([A-Za-z][A-Za-z0-9_\-]{{4,19}}|[0-9]{{6,12}}){_R}",
    ),
    _p("qq", rf"(?:扣扣|q[ ]?q)(?:群|号){{0,2}}{_GAP}([1-9][0-9]{{4,11}})(?![0-9])", needs=_DIGIT),
    # what is left of long numbers: an order, an account, a shipment; nothing that a reader of reviews needs
    _p("order_number", r"(?<![0-9A-Za-z])([0-9](?:[\-]?[0-9]){10,31})(?![0-9A-Za-z])", needs=_DIGIT),
    _p(
        "user_name",
        rf"(?:会员名|会员号|用户名|昵称|网名|账号|帐号|user ?name(?: is)?|login){_GAP}[ ]?([A-Za-z0-9_][A-Za-z0-9_.\-]{{2,29}}){_R}",
    ),
    _p(
        "date",
        r"(?<![0-9])((?:19|20)?[0-9]{2}[年./\-](?:1[0-2]|0?[1-9])(?:[月./\-](?:3[01]|[12][0-9]|0?[1-9])(?![0-9])[日号]?|月))",
        needs=_DIGIT,
    ),
    _p("date", r"(?<![0-9])((?:1[0-2]|0?[1-9])月(?:3[01]|[12][0-9]|0?[1-9])[日号]?)", needs="月"),
    _p("age", r"(?<![0-9])((?:1[01]|[1-9])?[0-9](?:周岁|岁|[ \-]years?[ \-]old))", needs=_DIGIT),
    _p("amount", r"(?<![0-9.])([0-9]{1,9}(?:,[0-9]{3}){0,3}(?:\.[0-9]{1,2})?(?:元|块钱|块|万元|rmb))", needs=_DIGIT),
    _p("amount", r"([¥￥$€£][ ]?[0-9]{1,9}(?:,[0-9]{3}){0,3}(?:\.[0-9]{1,2})?)(?![0-9])", needs=_DIGIT),
    _p(
        "postcode",
        rf"(?:邮政编码|邮编|zip code|zip|postcode|postal code){_GAP}([0-9]{{5,6}}(?:-[0-9]{{4}})?)(?![0-9])",
        needs=_DIGIT,
    ),
    _p(
        "precise_location",
        r"(?<![0-9.])(-?[0-9]{1,3}\.[0-9]{4,8}[,， ]{1,2}-?[0-9]{1,3}\.[0-9]{4,8})(?![0-9])",
        needs=_DIGIT,
    ),
    _p(
        "minor",
        r"(?<![0-9])((?:1[0-7]|[1-9])(?:个月|岁半|岁)(?:大)?的?(?:孩子|宝宝|儿子|女儿|小孩|女孩|男孩|娃))",
        needs=_DIGIT,
    ),
    _p(
        "minor",
        r"(?<![0-9])((?:1[0-7]|[1-9])[ \-]years?[ \-]old (?:child|son|daughter|boy|girl|kid|baby))",
        needs=_DIGIT,
    ),
)
