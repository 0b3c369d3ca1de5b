"""Order notes with personal information and its gold spans, in Chinese and English: synthetic, and declared so.

A note is built from pieces, so the spans are exact by construction. It carries one to three identifiers at random; some
notes name third persons, who are in no field of the record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import faker
import numpy as np

from moo.core.errors import InputError
from moo.core.measurement import Span
from moo.core.personal_data_types import ENTITY_LEVELS
from moo.data.synthetic import identifiers

# names and addresses drawn from Faker once, then sampled: Faker is slow
POOL = 3000
LOCALES = {"zh": "zh_CN", "en": "en_US"}
# text, and its entity type or "" for plain text
Piece = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Customer:
    """Synthetic person with the values that a shop keeps in its tables."""

    name: str
    gender: int
    birth_year: int
    mobile: str
    email: str
    address: str
    city: str
    resident_id: str
    bank_card: str
    wechat: str
    user_name: str

    @property
    def fields(self) -> Mapping[str, str]:
        """Structured fields of the customer by entity type."""
        types = ("name", "mobile", "email", "address", "resident_id", "bank_card", "wechat", "user_name")
        return {t: getattr(self, t) for t in types}


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Notes of customers.

    Attributes:
        texts, gold, fields: Text, true spans and the customer's fields of each note; length n.
        users: Number of each note's customer, shape (n,).
    """

    texts: tuple[str, ...]
    gold: tuple[tuple[Span, ...], ...]
    fields: tuple[Mapping[str, str], ...]
    users: np.ndarray[tuple[int], np.dtype[np.int64]]


@lru_cache(maxsize=4)
def _pools(language: str) -> dict[str, list[str]]:
    if language not in LOCALES:
        raise InputError(
            "language must be one of {locales}, got {language!r}.",
            locales=", ".join(sorted(LOCALES)),
            language=language,
        )
    source = faker.Faker(LOCALES[language])
    source.seed_instance(20_260)
    pool: dict[str, list[str]] = {
        "female": [source.name_female() for _ in range(POOL)],
        "male": [source.name_male() for _ in range(POOL)],
        "street": [source.street_address().replace("\n", " ") for _ in range(POOL)],
        "city": [source.city() for _ in range(400)],
        "domain": [source.free_email_domain() for _ in range(40)],
    }
    return pool


def person_name(rng: np.random.Generator, language: str) -> str:
    """Return the name of any person."""
    return pick(rng, _pools(language)["male" if rng.integers(2) else "female"])


def draw_customer(rng: np.random.Generator, language: str) -> Customer:
    """Return one customer, born between 1945 and 2016."""
    pool = _pools(language)
    gender = int(rng.integers(2))
    birth_year = int(np.clip(rng.normal(1990, 12), 1945, 2016))
    city = pick(rng, pool["city"])
    street = pick(rng, pool["street"])
    if language == "zh":
        unit = f"{rng.integers(1, 30)}号{rng.integers(1, 20)}栋{rng.integers(101, 2500)}室"
        address = (
            f"{city}{street.rstrip('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 座号栋室')}{unit}"
        )
    else:
        address = f"{street}, {city}"
    name = pick(rng, pool["male" if gender else "female"])
    return Customer(
        name=name,
        gender=gender,
        birth_year=birth_year,
        mobile=identifiers.mobile(rng) if language == "zh" else _us_phone(rng),
        email=f"{identifiers.handle(rng)}@{pick(rng, pool['domain'])}",
        address=address,
        city=city,
        resident_id=identifiers.resident_id(rng, birth_year),
        bank_card=identifiers.bank_card(rng),
        wechat=identifiers.handle(rng),
        user_name=identifiers.handle(rng),
    )


def _us_phone(rng: np.random.Generator) -> str:
    return f"({rng.integers(201, 989)}) {rng.integers(220, 999)}-{identifiers.digits(rng, 4)}"


def pick(rng: np.random.Generator, options: list[str]) -> str:
    """Return one of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


Draw = Callable[[np.random.Generator, Customer], list[Piece]]


def _zh_templates() -> dict[str, list[Draw]]:
    return _zh_direct() | _zh_numbers() | _zh_quasi() | _zh_sensitive()


def _zh_direct() -> dict[str, list[Draw]]:
    n = identifiers

    return {
        "name": [
            lambda _, c: [("收货人：", ""), (c.name, "name"), ("。", "")],
            lambda _, c: [("请送到楼下找", ""), (c.name, "name"), (["女士", "先生"][c.gender], ""), ("，谢谢。", "")],
            lambda r, _: [("麻烦转交给同事", ""), (person_name(r, "zh"), "name"), ("。", "")],
            lambda r, _: [("联系人是我朋友", ""), (person_name(r, "zh"), "name"), ("。", "")],
        ],
        "mobile": [
            lambda r, c: [("电话", ""), (n.spaced(c.mobile, r, (3, 4)), "mobile"), ("。", "")],
            lambda r, c: [("到了打", ""), (n.spaced(c.mobile, r, (3, 4)), "mobile"), ("，", "")],
            lambda _, c: [("手机号：", ""), ("+86 " + c.mobile, "mobile"), ("；", "")],
        ],
        "landline": [lambda r, _: [("座机", ""), (n.landline(r), "landline"), ("也行。", "")]],
        "address": [
            lambda _, c: [("地址：", ""), (c.address, "address"), ("。", "")],
            lambda _, c: [("请寄到", ""), (c.address, "address"), ("，", "")],
        ],
        "resident_id": [
            lambda _, c: [("身份证号", ""), (c.resident_id, "resident_id"), ("，清关用。", "")],
            lambda _, c: [("实名认证：", ""), (c.resident_id, "resident_id"), ("。", "")],
        ],
        "bank_card": [
            lambda r, c: [("退款到卡", ""), (n.spaced(c.bank_card, r, (4, 4, 4, 4)), "bank_card"), ("。", "")],
            lambda r, c: [("银行卡号：", ""), (n.spaced(c.bank_card, r, (4, 4, 4, 4)), "bank_card"), ("，", "")],
        ],
        "email": [lambda _, c: [("发票发到", ""), (c.email, "email"), ("。", "")]],
        "wechat": [
            lambda _, c: [("加我微信", ""), (c.wechat, "wechat"), ("，", "")],
            lambda _, c: [("微信号：", ""), (c.wechat, "wechat"), ("。", "")],
        ],
    }  # fmt: skip


def _zh_numbers() -> dict[str, list[Draw]]:
    n = identifiers

    return {
        "qq": [lambda r, _: [("QQ：", ""), (str(r.integers(10_000_000, 4_000_000_000)), "qq"), ("。", "")]],
        "plate": [lambda r, _: [("车牌", ""), (n.plate(r), "plate"), ("，可以进小区。", "")]],
        "passport": [lambda r, _: [("护照号", ""), (f"E{n.digits(r, 8)}", "passport"), ("。", "")]],
        "order_number": [lambda r, _: [("订单号", ""), (f"20{n.digits(r, 16)}", "order_number"), ("，请查一下。", "")]],
        "tracking_number": [
            lambda r, _: [
                ("快递单号", ""),
                (f"{['SF', 'YT', 'JD'][r.integers(3)]}{n.digits(r, 13)}", "tracking_number"),
                ("。", ""),
            ]
        ],
        "ip": [lambda r, _: [("登录地址", ""), (".".join(map(str, r.integers(1, 255, 4))), "ip"), ("不是我。", "")]],
        "device_id": [lambda r, _: [("手机IMEI", ""), (n.imei(r), "device_id"), ("。", "")]],
        "url": [lambda r, _: [("晒单在", ""), (f"https://shop.example.com/u/{n.handle(r)}", "url"), (" 。", "")]],
        "user_name": [lambda _, c: [("会员名", ""), (c.user_name, "user_name"), ("，", "")]],
    }  # fmt: skip


def _zh_quasi() -> dict[str, list[Draw]]:
    n = identifiers

    return {
        "age": [
            lambda _, c: [("本人今年", ""), (f"{2026 - c.birth_year}岁", "age"), ("，", "")],
            lambda r, _: [("给", ""), (f"{r.integers(55, 90)}岁", "age"), ("的老人买的。", "")],
        ],
        "date": [
            lambda r, _: [
                ("", ""),
                (f"202{r.integers(4, 7)}年{r.integers(1, 13)}月{r.integers(1, 29)}日", "date"),
                ("下的单。", ""),
            ],
            lambda r, _: [("请在", ""), (f"{r.integers(1, 13)}月{r.integers(1, 29)}号", "date"), ("前送到。", "")],
        ],
        "amount": [
            lambda r, _: [("实付", ""), (f"{r.integers(5, 3000)}.{r.integers(10, 100)}元", "amount"), ("。", "")],
        ],
        "city": [lambda _, c: [("我人在", ""), (c.city, "city"), ("，", "")]],
        "postcode": [lambda r, _: [("邮编", ""), (f"{r.integers(1, 8)}{n.digits(r, 5)}", "postcode"), ("。", "")]],
    }  # fmt: skip


def _zh_sensitive() -> dict[str, list[Draw]]:
    return {
        "health": [
            lambda r, _: [
                ("家人有", ""), (pick(r, ["糖尿病", "高血压", "哮喘", "抑郁症", "乙肝"]), "health"), ("，", "")
            ],
        ],
        "religion": [
            lambda r, _: [("我们", ""), (pick(r, ["信佛教", "信基督教", "是穆斯林"]), "religion"), ("，", "")],
        ],
        "biometric": [lambda r, _: [("门禁要", ""), (pick(r, ["指纹", "人脸识别", "虹膜"]), "biometric"), ("，", "")]],
        "finance": [
            lambda r, _: [("最近", ""), (pick(r, ["信用卡逾期", "在还房贷", "申请了贷款"]), "finance"), ("，", "")],
        ],
        "precise_location": [
            lambda r, _: [
                ("定位", ""), (f"{r.uniform(20, 45):.5f},{r.uniform(100, 125):.5f}", "precise_location"), ("。", ""),
            ]
        ],
        "minor": [lambda r, _: [("给", ""), (f"{r.integers(2, 14)}岁的孩子", "minor"), ("用，", "")]],
    }  # fmt: skip


def _en_templates() -> dict[str, list[Draw]]:
    n = identifiers

    return {
        "name": [
            lambda _, c: [("Deliver to ", ""), (c.name, "name"), (". ", "")],
            lambda r, _: [("Please hand it to my colleague ", ""), (person_name(r, "en"), "name"), (". ", "")],
        ],
        "mobile": [lambda _, c: [("Call me at ", ""), (c.mobile, "mobile"), (". ", "")]],
        "address": [lambda _, c: [("Address: ", ""), (c.address, "address"), (". ", "")]],
        "bank_card": [
            lambda r, c: [("Refund to card ", ""), (n.spaced(c.bank_card, r, (4, 4, 4, 4)), "bank_card"), (". ", "")],
        ],
        "email": [lambda _, c: [("Send the invoice to ", ""), (c.email, "email"), (". ", "")]],
        "order_number": [lambda r, _: [("Order number ", ""), (f"20{n.digits(r, 16)}", "order_number"), (". ", "")]],
        "tracking_number": [
            lambda r, _: [("Tracking number ", ""), (f"1Z{n.digits(r, 16)}", "tracking_number"), (". ", "")],
        ],
        "ip": [lambda r, _: [("Logged in from ", ""), (".".join(map(str, r.integers(1, 255, 4))), "ip"), (". ", "")]],
        "url": [lambda r, _: [("See ", ""), (f"https://shop.example.com/u/{n.handle(r)}", "url"), (" . ", "")]],
        "user_name": [lambda _, c: [("My user name is ", ""), (c.user_name, "user_name"), (". ", "")]],
        "age": [lambda _, c: [("I am ", ""), (f"{2026 - c.birth_year} years old", "age"), (". ", "")]],
        "date": [
            lambda r, _: [
                ("Ordered on ", ""), (f"2025-{r.integers(1, 13):02d}-{r.integers(1, 29):02d}", "date"), (". ", "")
            ],
        ],
        "amount": [
            lambda r, _: [("I paid ", ""), (f"${r.integers(5, 900)}.{r.integers(10, 100)}", "amount"), (". ", "")],
        ],
        "postcode": [lambda r, _: [("ZIP code ", ""), (n.digits(r, 5), "postcode"), (". ", "")]],
        "health": [
            lambda r, _: [
                ("I have ", ""), (pick(r, ["diabetes", "asthma", "high blood pressure"]), "health"), (". ", "")
            ],
        ],
        "religion": [
            lambda r, _: [("We are ", ""), (pick(r, ["Muslim", "Buddhist", "Catholic"]), "religion"), (". ", "")],
        ],
        "finance": [
            lambda r, _: [("I am paying off ", ""), (pick(r, ["a mortgage", "a student loan"]), "finance"), (". ", "")],
        ],
        "minor": [lambda r, _: [("It is for my ", ""), (f"{r.integers(2, 14)}-year-old child", "minor"), (". ", "")]],
    }  # fmt: skip


DrawNote = Callable[[np.random.Generator, Customer, str], tuple[str, tuple[Span, ...]]]
_TEMPLATES = {"zh": _zh_templates(), "en": _en_templates()}


def draw_note(rng: np.random.Generator, customer: Customer, language: str) -> tuple[str, tuple[Span, ...]]:
    """Return a note with one to three identifiers, and the spans of these."""
    templates = _TEMPLATES[language]
    kinds = list(templates)
    # every second mention is of a type that is common in a shop's notes
    common = ["name", "mobile", "address", "email", "order_number"]
    chosen: list[str] = []
    for _ in range(int(rng.integers(1, 4))):
        kind = pick(rng, common) if rng.random() < 0.5 else pick(rng, kinds)
        if kind not in chosen:
            chosen.append(kind)
    text, spans = "", []
    for kind in chosen:
        options = templates[kind]
        for piece, entity in options[int(rng.integers(len(options)))](rng, customer):
            if entity:
                spans.append(
                    Span(start=len(text), end=len(text) + len(piece), type=entity, level=ENTITY_LEVELS[entity])
                )
            text += piece
    return text, tuple(spans)


def synthetic_notes(n: int, *, seed: int, language: str = "zh") -> Notes:
    """Return notes of customers who own 1 to 5 each, to measure masking on.

    Args:
        n: Number of notes, >= 1.
        seed: Seed; public, since the notes are synthetic.
        language: "zh" or "en".
    """
    return collect(n, np.random.default_rng([20_261, seed]), language, draw_note)


def collect(n: int, rng: np.random.Generator, language: str, draw: DrawNote) -> Notes:
    """Return n notes, drawn for one customer after another."""
    texts: list[str] = []
    gold: list[tuple[Span, ...]] = []
    fields: list[Mapping[str, str]] = []
    users: list[int] = []
    user = 0
    while len(texts) < n:
        customer = draw_customer(rng, language)
        for _ in range(int(rng.integers(1, 6))):
            text, spans = draw(rng, customer, language)
            texts.append(text)
            gold.append(spans)
            fields.append(customer.fields)
            users.append(user)
        user += 1
    return Notes(
        texts=tuple(texts[:n]),
        gold=tuple(gold[:n]),
        fields=tuple(fields[:n]),
        users=np.array(users[:n], dtype=np.int64),
    )
