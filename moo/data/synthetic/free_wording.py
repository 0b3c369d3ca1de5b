"""Notes in free wording: the second, harder set that masking is measured on.

The notes of `moo.data.synthetic.order_notes` follow the forms of a shop. Here the sentences come from a data file that
was written apart from the recognisers, numbers are written in more ways, and most names are of third persons, who are
in no field of the record.
"""

import tomllib
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from moo.core.errors import InputError
from moo.core.measurement import Span
from moo.core.personal_data_types import ENTITY_LEVELS
from moo.data.synthetic import identifiers as n
from moo.data.synthetic.order_notes import Customer, Notes, collect, person_name, pick

# share of name mentions that are not the customer's own
THIRD_PERSONS = 0.75
_MARK = "{}"
_ZH_DIGITS = "〇一二三四五六七八九"
_MONTHS = "January February March April May June July August September October November December"

Rng = np.random.Generator


@lru_cache(maxsize=2)
def _contexts(language: str) -> dict[str, Any]:
    file = resources.files("moo.data.synthetic.contexts") / f"{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


_LISTS = ("sentences", "held_out", "second")


def free_notes(count: int, *, seed: int, language: str = "zh", held_out: int = 0) -> Notes:
    """Return notes of customers who own 1 to 5 each, in free wording.

    `held_out` 1 and 2 take sentences and names of lists that are there to report a figure and not to learn from: each
    was read once, and the changes made after the first are measured on the second. English has the first alone.

    Args:
        count: Number of notes, >= 1.
        seed: Seed; public, since the notes are synthetic.
        language: "zh" or "en".
        held_out: 0 for the open list of sentences, 1 or 2 for a held-out one.

    Raises:
        InputError: If the language has no such held-out list.
    """
    if _LISTS[held_out] not in _contexts(language):
        raise InputError(
            "held_out must be a list of language {language}, {known}, got {held_out}.",
            language=language,
            known=[i for i, name in enumerate(_LISTS) if name in _contexts(language)],
            held_out=held_out,
        )

    def draw(rng: Rng, customer: Customer, language: str) -> tuple[str, tuple[Span, ...]]:
        return _draw(rng, customer, language, _LISTS[held_out])

    return collect(count, np.random.default_rng([20_263, seed, held_out]), language, draw)


def _draw(rng: Rng, customer: Customer, language: str, chosen: str) -> tuple[str, tuple[Span, ...]]:
    """Return one to three sentences with an identifier each, and the spans of these."""
    contexts = _contexts(language)
    sentences, names = contexts[chosen], contexts.get(f"{chosen}_names")
    kinds = list(sentences)
    common = ["name", "name", "mobile", "address", "email", "order_number"]
    text, spans = "", []
    for _ in range(int(rng.integers(1, 4))):
        kind = pick(rng, common) if rng.random() < 0.5 else pick(rng, kinds)
        parts = pick(rng, sentences[kind]).split(_MARK)
        if names and kind == "name" and rng.random() < 0.3:
            mention = pick(rng, names["names"])
        else:
            mention = value(kind, rng, customer, language)
        text += parts[0]
        for part in parts[1:]:
            spans.append(Span(start=len(text), end=len(text) + len(mention), type=kind, level=ENTITY_LEVELS[kind]))
            text += mention + part
    return text, tuple(spans)


def value(kind: str, rng: Rng, customer: Customer, language: str) -> str:
    """Return a value of an entity type, written as people do.

    Args:
        kind: Entity type.
        rng: Source of randomness.
        customer: Owner of the note.
        language: "zh" or "en".
    """
    values = _contexts(language)["values"]
    if kind in values:
        return pick(rng, values[kind])
    draws = {"zh": _ZH, "en": _EN}[language]
    return draws[kind](rng, customer)


def _name(language: str) -> Callable[[Rng, Customer], str]:
    def draw(rng: Rng, customer: Customer) -> str:
        if rng.random() > THIRD_PERSONS:
            return customer.name
        if rng.random() < 0.3:
            return pick(rng, _contexts(language)["names"])
        return person_name(rng, language)

    return draw


def _zh_mobile(rng: Rng, c: Customer) -> str:
    m = c.mobile
    forms = [m, m, m, f"{m[:3]} {m[3:7]} {m[7:]}", f"{m[:3]}-{m[3:7]}-{m[7:]}", f"+86{m}", f"86-{m}"]
    forms += [f"{m[:3]}.{m[3:7]}.{m[7:]}", f"{m[:4]} {m[4:7]} {m[7:]}", f"{m[:5]} {m[5:8]} {m[8:]}"]
    forms += [_full_width(m), _chinese(m), f"（{m[:3]}）{m[3:7]}{m[7:]}"]
    return pick(rng, forms)


def _full_width(text: str) -> str:
    return text.translate({ord(str(d)): chr(0xFF10 + d) for d in range(10)})


def _chinese(text: str) -> str:
    return text.translate({ord(str(d)): _ZH_DIGITS[d] for d in range(10)})


def _landline(rng: Rng, _: Customer) -> str:
    number = n.landline(rng)
    forms = [number, number.replace("-", ""), number.replace("-", " "), f"({number.replace('-', ')')}"]
    return pick(rng, [*forms, f"{number}-{rng.integers(1, 900)}"])


def _zh_address(rng: Rng, c: Customer) -> str:
    contexts = _contexts("zh")
    city, street = c.city, pick(rng, contexts["streets"])
    road = f"{street}{pick(rng, ['路', '大道', '街', '东路', '西街', '巷'])}{rng.integers(1, 999)}号"
    inside = pick(rng, contexts["compounds"])
    b, u, r = rng.integers(1, 30), rng.integers(1, 5), int(rng.integers(1, 33)) * 100 + int(rng.integers(1, 9))
    forms = [
        c.address,
        f"{city}{road}{inside}{b}号楼{u}单元{r}",
        f"{road}{inside}{b}幢{r}室",
        f"{city}{inside}{b}-{u}-{r}",
    ]
    forms += [f"{inside}{b}栋{u}单元{r}室", f"{city}{pick(rng, contexts['villages'])}{b}组{rng.integers(1, 99)}号"]
    forms += [f"{road}{b}层", f"{city}{road}", f"{inside}{chr(65 + int(rng.integers(6)))}座{r}"]
    return pick(rng, forms)


def _zh_date(rng: Rng, _: Customer) -> str:
    y, m, d = rng.integers(2023, 2027), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    months = ["一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二"]
    forms = [f"{y}年{m}月{d}日", f"{y}-{m:02d}-{d:02d}", f"{y}/{m}/{d}", f"{m}月{d}号", f"{y}年{m}月", f"{y}.{m}.{d}"]
    return pick(rng, [*forms, f"{months[m - 1]}月{_chinese_day(d)}号", f"{y}年底"])


def _chinese_day(day: int) -> str:
    tens, ones = divmod(day, 10)
    return ("" if tens == 0 else "十" if tens == 1 else "二十") + (_ZH_DIGITS[ones] if ones or not tens else "")


def _order(rng: Rng, _: Customer) -> str:
    forms = [f"20{n.digits(rng, 16)}", f"1{n.digits(rng, 17)}", f"JD{n.digits(rng, 12)}", f"E2025{n.digits(rng, 14)}"]
    return pick(rng, [*forms, f"TB-{n.digits(rng, 4)}-{n.digits(rng, 6)}", f"2{n.digits(rng, 11)}"])


def _zh_tracking(rng: Rng, _: Customer) -> str:
    forms = [f"SF{n.digits(rng, 13)}", f"YT{n.digits(rng, 13)}", f"7{n.digits(rng, 13)}", f"JDVA{n.digits(rng, 11)}"]
    return pick(rng, [*forms, f"ZTO{n.digits(rng, 12)}", f"EA{n.digits(rng, 9)}CN", f"4{n.digits(rng, 12)}"])


def _ip(rng: Rng, _: Customer) -> str:
    four = ".".join(map(str, rng.integers(1, 255, 4)))
    six = ":".join(f"{g:x}" for g in rng.integers(4096, 65535, 8))
    return pick(rng, [four, four, f"{four}:{rng.integers(1024, 65535)}", six, f"2001:db8::{rng.integers(1, 65535):x}"])


def _device(rng: Rng, _: Customer) -> str:
    mac = [f"{g:02X}" for g in rng.integers(0, 256, 6)]
    blocks = "-".join("".join(f"{g:x}" for g in rng.integers(0, 16, size)) for size in (8, 4, 4, 4, 12))
    return pick(rng, [n.imei(rng), ":".join(mac), "-".join(mac), blocks])


def _url(rng: Rng, _: Customer) -> str:
    h = n.handle(rng)
    forms = [f"https://shop.example.com/u/{h}", f"http://{h}.example.cn"]
    return pick(rng, [*forms, f"www.example.com/{h}?id={rng.integers(1, 9999)}", f"item.example.cn/{h}"])


def _location(rng: Rng, _: Customer) -> str:
    north, east = f"{rng.uniform(20, 45):.5f}", f"{rng.uniform(100, 125):.5f}"
    return pick(rng, [f"{north},{east}", f"{east}, {north}", f"N{north} E{east}", f"北纬{north[:6]}东经{east[:7]}"])


def _en_location(rng: Rng, _: Customer) -> str:
    north, west = f"{rng.uniform(25, 48):.5f}", f"{rng.uniform(70, 124):.5f}"
    return pick(rng, [f"{north},-{west}", f"{north}, -{west}", f"{north}N {west}W"])


def _email(rng: Rng, c: Customer) -> str:
    forms = [c.email, c.email, c.email, c.email.upper(), c.email.replace("@", "＠")]
    return pick(rng, [*forms, f"{n.handle(rng)}.{n.handle(rng)}@mail.example.com.cn"])


def _card(rng: Rng, c: Customer) -> str:
    return n.spaced(c.bank_card, rng, (4, 4, 4, 4))


def _user_name(language: str) -> Callable[[Rng, Customer], str]:
    def draw(rng: Rng, customer: Customer) -> str:
        if rng.random() < 0.25:
            return pick(rng, _contexts(language)["nicknames"]) + pick(rng, ["", n.digits(rng, 2)])
        return customer.user_name

    return draw


def _en_phone(rng: Rng, _: Customer) -> str:
    a, b, d = rng.integers(201, 989), rng.integers(220, 999), n.digits(rng, 4)
    forms = [f"({a}) {b}-{d}", f"{a}-{b}-{d}", f"{a}.{b}.{d}", f"+1 {a} {b} {d}", f"{a} {b} {d}", f"{a}{b}{d}"]
    return pick(rng, [*forms, f"1-{a}-{b}-{d}"])


def _en_address(rng: Rng, c: Customer) -> str:
    number, street = rng.integers(1, 900), pick(rng, ["Maple", "Church", "Highland", "Second", "River"])
    kind = pick(rng, ["Street", "Ave", "Rd", "Lane", "Blvd."])
    forms = [c.address, c.address, c.address.partition(",")[0], f"{number} {street} {kind}, Apt {rng.integers(1, 90)}"]
    return pick(
        rng, [*forms, f"{rng.integers(1, 99)} High Street, London SW1A 2AB", f"PO Box {rng.integers(10, 9999)}"]
    )


def _en_date(rng: Rng, _: Customer) -> str:
    y, m, d = rng.integers(2023, 2027), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    name = _MONTHS.split()[m - 1]
    forms = [f"{y}-{m:02d}-{d:02d}", f"{name} {d}, {y}", f"{d} {name} {y}", f"{name[:3]} {d}", f"{m}/{d}/{y}"]
    return pick(rng, [*forms, f"{name} {d}th", f"{d}.{m}.{y}"])


def _en_tracking(rng: Rng, _: Customer) -> str:
    return pick(
        rng, [f"1Z{n.digits(rng, 16)}", f"94{n.digits(rng, 20)}", f"7{n.digits(rng, 11)}", f"LX{n.digits(rng, 9)}US"]
    )


def _en_postcode(rng: Rng, _: Customer) -> str:
    return pick(rng, [n.digits(rng, 5), f"{n.digits(rng, 5)}-{n.digits(rng, 4)}", "SW1A 1AA", "M5V 3L9"])


def _zh_resident_id(rng: Rng, c: Customer) -> str:
    number = c.resident_id
    return pick(rng, [number, number.lower(), _full_width(number), f"{number[:6]} {number[6:14]} {number[14:]}"])


def _plate(rng: Rng, _: Customer) -> str:
    forms = [n.plate(rng), n.plate(rng).lower(), f"{n.plate(rng)[:2]}·{n.plate(rng)[2:]}", f"粤BD{n.digits(rng, 5)}"]
    return pick(rng, forms)


def _passport(rng: Rng, _: Customer) -> str:
    return pick(rng, [f"E{n.digits(rng, 8)}", f"EA{n.digits(rng, 7)}", f"G{n.digits(rng, 8)}", f"e{n.digits(rng, 8)}"])


_ZH: dict[str, Callable[[Rng, Customer], str]] = {
    "name": _name("zh"),
    "mobile": _zh_mobile,
    "landline": _landline,
    "address": _zh_address,
    "resident_id": _zh_resident_id,
    "bank_card": _card,
    "email": _email,
    "wechat": lambda r, c: pick(r, [c.wechat, c.wechat.upper(), c.mobile, f"wxid_{n.handle(r)}"]),
    "qq": lambda r, _: str(r.integers(10_000, 4_000_000_000)),
    "plate": _plate,
    "passport": _passport,
    "order_number": _order,
    "tracking_number": _zh_tracking,
    "ip": _ip,
    "device_id": _device,
    "url": _url,
    "user_name": _user_name("zh"),
    "date": _zh_date,
    "city": lambda _, c: c.city,
    "postcode": lambda r, _: f"{r.integers(1, 8)}{n.digits(r, 5)}",
    "precise_location": _location,
}
_EN: dict[str, Callable[[Rng, Customer], str]] = {
    "name": _name("en"),
    "mobile": _en_phone,
    "address": _en_address,
    "bank_card": _card,
    "email": _email,
    "order_number": _order,
    "tracking_number": _en_tracking,
    "ip": _ip,
    "device_id": _device,
    "url": _url,
    "user_name": _user_name("en"),
    "date": _en_date,
    "postcode": _en_postcode,
    "precise_location": _en_location,
}
