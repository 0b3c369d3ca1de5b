"""Patterns of numbers: identity cards, orders, shipments, telephones, bank cards, passports, plates."""

from moo.masking.recognisers import checksums
from moo.masking.recognisers.pattern import END, GAP, SEPARATOR, Pattern, at_least, pattern

_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PHONE_CUE = r"(?:座机|固话|电话|热线|传真|拨打|拨|(?<![A-Za-z])tel|telephone)"
_ORDER = r"(?:[订定]单编?号?码?|发票号码?|单据号|流水号|交易单?号|单号|编号)"
_EN_NUMBER = r"(?:[ ]?(?:number|no\.?|id|\#))?"
_ORDER_EN = rf"(?<![A-Za-z])(?:order|ref|invoice|purchase){_EN_NUMBER}"
_CARRIER = r"(?:顺丰|圆通|中通|申通|韵达|百世|极兔|京东快递|邮政|天天快递|(?:快递|运|物流|包裹|退货)(?:运?单号?|编号)?)"
_CARRIER_EN = rf"(?<![A-Za-z])(?:ems|ups|fedex|dhl|usps|tracking|parcel|shipment){_EN_NUMBER}"

DOCUMENTS: tuple[Pattern, ...] = (
    pattern(
        "resident_id",
        r"[1-9](?<![0-9A-Za-z][1-9])(?:[ \-]?[0-9]){16}[ \-]?[0-9Xx](?![0-9A-Za-z])",
        "checksum of GB 11643",
        checksums.resident_id,
        digits=17,
    ),
    pattern(
        "resident_id",
        rf"""
        (?:身份证号?码?|实名认证|证件号?码?|resident[ ]id|(?<![A-Za-z])id)
        {GAP}([1-9](?:[ \-]?[0-9]){{13,16}}[ \-]?[0-9x]){END}
        """,
        "behind a cue word",
        cues="身份证 实名 证件 id",
        digits=15,
    ),
    pattern(
        "order_number",
        rf"{_ORDER}{GAP}([0-9A-Za-z][0-9A-Za-z\-]{{5,31}}){END}",
        "behind a cue word",
        at_least(5),
        cues="单 发票 编号 流水 交易",
        exact=True,
        digits=4,
    ),
    pattern(
        "order_number",
        rf"{_ORDER_EN}{GAP}([0-9A-Za-z][0-9A-Za-z\-]{{5,31}}){END}",
        "behind a cue word",
        at_least(5),
        cues="order ref invoice purchase",
        digits=4,
    ),
    pattern(
        "tracking_number",
        rf"{_CARRIER}{GAP}([0-9A-Za-z]{{8,24}}){END}",
        "behind a carrier's name",
        at_least(8),
        cues="顺丰 圆通 中通 申通 韵达 百世 极兔 京东 邮政 天天 快递 运 物流 包裹 退货",
        exact=True,
        digits=7,
    ),
    pattern(
        "tracking_number",
        rf"{_CARRIER_EN}{GAP}([0-9A-Za-z]{{8,24}}){END}",
        "behind a carrier's name",
        at_least(8),
        cues="ems ups fedex dhl usps tracking parcel shipment",
        digits=7,
    ),
    pattern(
        "tracking_number",
        rf"""
        [1A-Z](?<![0-9A-Za-z].)
        (?:(?<=S)F|(?<=Y)(?:TO?|D)|(?<=J)DV?[A-Z]?|(?<=[ZS])TO|(?<=E)MS|(?<=1)Z|[A-Z](?=[0-9]{{9}}[A-Z]{{2}}))
        [0-9A-Z]{{0,3}}[0-9]{{6,15}}[0-9A-Z]{{0,2}}{END}
        """,
        "a carrier's form",
        digits=7,
    ),
)

PHONES: tuple[Pattern, ...] = (
    pattern(
        "mobile",
        rf"""
        (?:\+86|0086|86)(?<![0-9]86)(?<![0-9]0086)
        [ \-]{{0,2}}[(（]?1{SEPARATOR}[3-9](?:{SEPARATOR}[0-9]){{9}}(?![0-9])
        """,
        "Chinese mobile with country code",
        digits=11,
    ),
    pattern(
        "mobile",
        rf"1(?<![0-9]1){SEPARATOR}[3-9](?:{SEPARATOR}[0-9]){{9}}(?![0-9])",
        "form of a Chinese mobile",
        digits=11,
    ),
    pattern(
        "mobile",
        r"""
        [+(1-9](?<![0-9A-Za-z].)
        (?:(?<=\+)1[ \-.]?\(?[2-9]|(?<=1)[ \-.]?\(?[2-9]|(?<=\()[2-9]|(?<=[2-9]))
        [0-9]{2}(?:\)[ ]?|[ \-.])?[2-9][0-9]{2}[ \-.]?[0-9]{4}(?![0-9A-Za-z])
        """,
        "form of a North American number",
        checksums.american_phone,
        digits=10,
    ),
    pattern("mobile", r"\+[1-9][0-9](?:[ \-.()]{0,2}[0-9]){6,12}(?![0-9])", "international form", digits=8),
    pattern(
        "landline",
        r"""
        [(0](?<![0-9A-Za-z(].)0?(?<=0)[1-9][0-9]{1,2}
        \)?[ \-]{0,2}[2-9][0-9]{6,7}(?:[ \-转]{1,2}[0-9]{1,5})?(?![0-9A-Za-z])
        """,
        "form of a Chinese landline",
        checksums.landline,
        digits=10,
    ),
    pattern(
        "landline",
        rf"{_PHONE_CUE}{GAP}((?:[0-9]{{3,4}}[ \-]?)?[2-9][0-9]{{6,7}}){END}",
        "behind a cue word",
        cues="座机 固话 电话 热线 传真 拨 tel",
        digits=7,
    ),
    pattern(
        "landline",
        r"[2-8](?<![0-9A-Za-z.,\-][2-8])[0-9]{7}(?![0-9A-Za-z.,\-元块件个台部条次人年万亿粒瓶])",
        "form of a local number",
        checksums.local_phone,
        digits=8,
    ),
    pattern(
        "mobile",
        r"""
        (?<![A-Za-z])(?:phone|mobile|tel|cell|call|text|ring|whatsapp|number)
        (?:[ ]?(?:me|us|no\.?|is|at|on|number|:|\#)){0,3}
        [ ]?(\+?[0-9(][0-9 \-().]{5,18}[0-9])(?![0-9A-Za-z])
        """,
        "behind a cue word",
        at_least(7),
        cues="phone mobile tel cell call text ring whatsapp number",
        digits=7,
    ),
)

CARDS: tuple[Pattern, ...] = (
    pattern(
        "device_id",
        r"(?:35|86|99|01)(?<![0-9A-Za-z]..)[0-9]{13}(?![0-9A-Za-z])",
        "IMEI with its check digit",
        checksums.device,
        digits=15,
    ),
    pattern(
        "bank_card",
        r"[2-6](?<![0-9A-Za-z][2-6])[0-9](?:[ \-]{0,2}[0-9]){14,17}(?![0-9A-Za-z])",
        "passes Luhn",
        checksums.card,
        digits=16,
    ),
    pattern(
        "bank_card",
        rf"""
        (?:银行卡|信用卡|借记卡|储蓄卡|卡|账户|[工农建招中交][行商]|visa|mastercard|card|account)
        (?:号码?)?(?:[ ]?(?:number|no\.?|is))?
        {GAP}([2-9](?:[ \-]{{0,2}}[0-9]){{14,18}}){END}
        """,
        "behind a cue word",
        cues="卡 账户 行 商 visa card account",
        digits=15,
    ),
    pattern(
        "passport",
        rf"""
        (?:护照|港澳通行证|通行证|证件|passport)(?:[ ]?(?:number|no\.?|is))?
        {GAP}([A-Z]{{1,2}}[0-9]{{7,8}}){END}
        """,
        "behind a cue word",
        cues="护照 通行证 证件 passport",
        digits=7,
    ),
    pattern(
        "passport",
        rf"[EGDSPHegdsph](?<![0-9A-Za-z].)[A-Za-z]?[0-9]{{7,8}}{END}",
        "form of a passport number",
        digits=7,
    ),
    pattern(
        "plate",
        rf"""
        [{_PROVINCE}][A-HJ-NP-Za-hj-np-z][·•\- ]?
        [A-HJ-NP-Za-hj-np-z0-9]{{4,5}}[A-HJ-NP-Za-hj-np-z0-9挂学警港澳](?![0-9A-Za-z])
        """,
        "form of a number plate",
        checksums.has_digit,
        cues=" ".join(_PROVINCE),
        exact=True,
    ),
)

# The rest of the long numbers: an order, an account, a shipment; nothing that a reader of reviews needs.
LONG_NUMBERS: tuple[Pattern, ...] = (
    pattern(
        "order_number",
        r"\#[ ]{0,3}([0-9]{2,6}(?:[ \-][0-9]{2,6}){1,6})(?![0-9A-Za-z])",
        "behind a number sign",
        at_least(7),
        cues="#",
        digits=7,
    ),
    pattern(
        "order_number",
        r"[0-9](?<![0-9A-Za-z][0-9])[0-9]{5,19}(?=是?(?:我的?|这个)?(?:[订定]单|单号))",
        "before a cue word",
        cues="单",
        digits=6,
    ),
    pattern(
        "order_number",
        r"[0-9](?<![0-9A-Za-z][0-9])(?:\-?[0-9]){10,31}(?![0-9A-Za-z])",
        "a long number",
        checksums.number,
        digits=11,
    ),
    pattern(
        "order_number",
        rf"""
        [A-Z](?<![0-9A-Za-z].)(?<!(?=IMEI|MEID|SN|QQ|VX|WX|ID|TEL).)
        [A-Z]{{0,3}}-?[0-9]{{4,24}}(?:-[0-9]{{2,20}}){{0,3}}{END}
        """,
        "letters and a long number",
        at_least(9),
        digits=4,
    ),
)
