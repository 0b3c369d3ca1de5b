"""What stands in a text where personal information stood: a type token, or a fixed public bin."""

import math
import re

_NUMBER = re.compile(r"\d+(?:\.\d+)?")  # digits of any script: int() and float() read them
_DISTRICT = re.compile(r"^[\u4e00-\u9fff]{2,12}?(?:市|区|县)")
_PROVINCE_OF = re.compile(
    r"^(北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门)"
)


def replacement(kind: str, mention: str, level: int) -> str:
    """The token for a mention of a type at a level.

    Ages go to ten years, dates to quarters, amounts to powers of ten, cities to provinces: fixed public bins, so that no
    other person's record decides what stands there.
    """
    if kind == "rare":
        return "<RARE>"
    if kind == "digits":
        return "<NUM>"
    if kind == "address" and level == 2 and (district := _DISTRICT.match(mention)):
        return f"{district.group()}[ADDRESS]"
    bins = {"age": _age, "date": _date, "amount": _amount, "city": _city}
    detail = bins[kind](mention) if kind in bins and level < 5 else ""
    return f"[{kind.upper()}:{detail}]" if detail else f"[{kind.upper()}]"


def _age(mention: str) -> str:
    found = _NUMBER.search(mention)
    if found is None:
        return ""
    low = int(float(found.group())) // 10 * 10
    return f"{low}-{low + 9}"


def _date(mention: str) -> str:
    numbers = [int(n) for n in re.findall(r"\d+", mention)]
    if not numbers:
        return ""
    year = numbers[0] if len(str(numbers[0])) == 4 else None
    month = numbers[1] if year and len(numbers) > 1 else numbers[0]
    quarter = f"Q{(month - 1) // 3 + 1}" if 1 <= month <= 12 else ""
    return f"{year or ''}{quarter}"


def _amount(mention: str) -> str:
    found = _NUMBER.search(mention.replace(",", ""))
    value = float(found.group()) if found else 0.0
    return f"10^{math.floor(math.log10(value))}" if value > 0 else "0"


def _city(mention: str) -> str:
    found = _PROVINCE_OF.match(mention)
    return found.group() if found else ""
