"""Recognisers by structure, level 1 and the user names of level 2: numbers with checksums, handles behind cue words.

Every pattern runs on normalised text (`moo.masking.normalisation`), has bounded repeats and an explicit boundary on both sides, so
it is linear in the text. `\\b` is not used: there is no word boundary between a Chinese character and a digit in Unicode. Where a
pattern can begin with a class of characters it does, and looks back over it: the engine then skips to the first of them.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from moo.masking.recognisers import checksums

_L, _R = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"
_GAP = r"[ \t：:=是为叫号码编#.,，\-（(]{0,4}"  # what may stand between a cue word and its value
_SEP = r"[ \-.·()（）]{0,2}"  # what may stand between two digits of one number
_PROVINCE = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_TLD = "com|cn|net|org|edu|gov|io|top|xyz|cc|shop|info|vip|link|hk|tw|uk|de|fr|jp|us"


@dataclass(frozen=True)
class Pattern:
    """One way in which a type of personal information is written.

    Attributes:
        type: Entity type.
        regex: Group 1, where there is one, is the mention; else the whole match.
        why: What it goes by, in words, for whoever asks.
        check: Of the mention; None accepts every match.
        cues: Strings in lower case of which one must stand in the text, or none: a cheap first test.
        digits: The longest number of the text must have at least so many characters: another one.
    """

    type: str
    regex: "re.Pattern[str]"
    why: str
    check: Callable[[str], bool] | None = None
    cues: tuple[str, ...] = ()
    digits: int = 0


def _ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition(":")[0] if "." in text else text)
    except ValueError:
        return False
    return len(text) >= 8 and checksums.has_digit(text)


def _digits(least: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        return sum("0" <= c <= "9" for c in text) >= least

    return check


def _like_a_handle(text: str) -> bool:
    """A digit, an underscore, a dot or a capital inside: a word of the language has none."""
    return any(c in "0123456789_." for c in text) or text[1:] != text[1:].lower()


def pattern(
    kind: str,
    regex: str,
    why: str,
    check: Callable[[str], bool] | None = None,
    *,
    cues: str = "",
    digits: int = 0,
    exact: bool = False,
) -> Pattern:
    """A pattern; cues are separated by blanks, and with cues capitals and small letters are the same unless `exact`."""
    flags = re.IGNORECASE if cues and not exact else re.NOFLAG
    return Pattern(kind, re.compile(regex, flags), why, check, tuple(cues.split()), digits)


_p = pattern
_PHONE_CUE = r"(?:座机|固话|电话|热线|传真|拨打|拨|(?<![A-Za-z])tel|telephone)"
_ORDER = r"(?:[订定]单编?号?码?|发票号码?|单据号|流水号|交易单?号|单号|编号)"
_ORDER_EN = r"(?<![A-Za-z])(?:order|ref|invoice|purchase)(?: ?(?:number|no\.?|id|#))?"
_CARRIER = r"(?:顺丰|圆通|中通|申通|韵达|百世|极兔|京东快递|邮政|天天快递|(?:快递|运|物流|包裹|退货)(?:运?单号?|编号)?)"
_CARRIER_EN = r"(?<![A-Za-z])(?:ems|ups|fedex|dhl|usps|tracking|parcel|shipment)(?: ?(?:number|no\.?|id|#))?"

# In order of trust: what stands earlier wins where two overlap.
PATTERNS: tuple[Pattern, ...] = (
    _p("url", r"(?:https?://|www\.)[A-Za-z0-9._~:/?#@!$&'()*+,;=%\-]{3,300}", "web address", cues="http www."),
    _p(
        "email",
        r"(?<![A-Za-z0-9._%+\-])([A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,4})",
        "address with @",
        cues="@",
    ),
    _p(
        "email",
        rf"(?<![A-Za-z0-9._%+\-])([A-Za-z0-9._%+\-]{{1,64}}[ ]?(?:@|艾特|[(（\[]at[)）\]]|#|[ ]at[ ])[ ]?[A-Za-z0-9\-]{{1,40}}(?:[ ]?(?:\.|点|dot|[(（\[]dot[)）\]])[ ]?[A-Za-z0-9\-]{{1,40}}){{0,2}}[ ]?(?:\.|点|dot|[(（\[]dot[)）\]])[ ]?(?:{_TLD})){_R}",
        "address in words",
        cues="dot 点 .com .cn .net .org .edu .gov .io",
    ),
    _p(
        "url",
        r"(?<![A-Za-z0-9@.\-])((?:[A-Za-z0-9\-]{1,40}\.){1,4}(?:com|cn|net|org|io|top|xyz|cc|shop|info|vip|link)(?:[/?:][A-Za-z0-9._~:/?#@!$&'()*+,;=%\-]{0,300})?)(?![A-Za-z0-9@\-])",
        "domain name",
        cues=".com .cn .net .org .io .top .xyz .cc .shop .info .vip .link",
    ),
    _p(
        "url",
        r"\.(?<![A-Za-z0-9@\-].)(?:com|cn|net|org)/[A-Za-z0-9._~:/?#@!$&'()*+,;=%\-]{3,300}",
        "a path behind a domain that was cut off",
        cues=".com/ .cn/ .net/ .org/",
    ),
    _p(
        "ip",
        r"[0-9](?<![0-9.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9])(?!\.[0-9])(?::[0-9]{1,5}(?![0-9]))?",
        "IPv4 address",
        _ip,
        cues=".",
        digits=7,
    ),
    _p(
        "ip",
        r"[0-9A-Fa-f:](?<![0-9A-Fa-f:.].)[0-9A-Fa-f]{0,3}:[0-9A-Fa-f:]{3,36}(?![0-9A-Za-z:])",
        "IPv6 address",
        _ip,
        cues=":",
        exact=True,
    ),
    _p(
        "device_id",
        rf"[0-9A-Fa-f](?<![0-9A-Za-z].)[0-9A-Fa-f]{{7}}-(?:[0-9A-Fa-f]{{4}}-){{3}}[0-9A-Fa-f]{{12}}{_R}",
        "UUID",
        cues="-",
        exact=True,
    ),
    _p(
        "device_id",
        rf"[0-9A-Fa-f](?<![0-9A-Za-z].)[0-9A-Fa-f](?:[:\-][0-9A-Fa-f]{{2}}){{5}}{_R}",
        "MAC address",
        cues=": -",
        exact=True,
    ),
    _p(
        "device_id",
        rf"(?:IMEI|MEID|设备号|设备码|序列号?|串号|device ?(?:id|no\.?)?|serial(?: number| no\.?)?|(?<![A-Za-z])s/?n){_GAP}([0-9A-Za-z\-]{{8,40}}){_R}",
        "behind a cue word",
        _digits(6),
        cues="imei meid 设备 序列 串号 device serial sn s/n",
    ),
    _p(
        "resident_id",
        r"[1-9](?<![0-9A-Za-z][1-9])(?:[ \-]?[0-9]){16}[ \-]?[0-9Xx](?![0-9A-Za-z])",
        "checksum of GB 11643",
        checksums.resident_id,
        digits=17,
    ),
    _p(
        "resident_id",
        rf"(?:身份证号?码?|实名认证|证件号?码?|resident id|(?<![A-Za-z])id){_GAP}([1-9](?:[ \-]?[0-9]){{13,16}}[ \-]?[0-9x]){_R}",
        "behind a cue word",
        cues="身份证 实名 证件 id",
        digits=15,
    ),
    _p(
        "order_number",
        rf"{_ORDER}{_GAP}([0-9A-Za-z][0-9A-Za-z\-]{{5,31}}){_R}",
        "behind a cue word",
        _digits(5),
        cues="单 发票 编号 流水 交易",
        exact=True,
        digits=4,
    ),
    _p(
        "order_number",
        rf"{_ORDER_EN}{_GAP}([0-9A-Za-z][0-9A-Za-z\-]{{5,31}}){_R}",
        "behind a cue word",
        _digits(5),
        cues="order ref invoice purchase",
        digits=4,
    ),
    _p(
        "tracking_number",
        rf"{_CARRIER}{_GAP}([0-9A-Za-z]{{8,24}}){_R}",
        "behind a carrier's name",
        _digits(8),
        cues="顺丰 圆通 中通 申通 韵达 百世 极兔 京东 邮政 天天 快递 运 物流 包裹 退货",
        exact=True,
        digits=7,
    ),
    _p(
        "tracking_number",
        rf"{_CARRIER_EN}{_GAP}([0-9A-Za-z]{{8,24}}){_R}",
        "behind a carrier's name",
        _digits(8),
        cues="ems ups fedex dhl usps tracking parcel shipment",
        digits=7,
    ),
    _p(
        "tracking_number",
        rf"[1A-Z](?<![0-9A-Za-z].)(?:(?<=S)F|(?<=Y)(?:TO?|D)|(?<=J)DV?[A-Z]?|(?<=[ZS])TO|(?<=E)MS|(?<=1)Z|[A-Z](?=[0-9]{{9}}[A-Z]{{2}}))[0-9A-Z]{{0,3}}[0-9]{{6,15}}[0-9A-Z]{{0,2}}{_R}",
        "a carrier's form",
        digits=7,
    ),
    _p(
        "mobile",
        rf"(?:\+86|0086|86)(?<![0-9]86)(?<![0-9]0086)[ \-]{{0,2}}[(（]?1{_SEP}[3-9](?:{_SEP}[0-9]){{9}}(?![0-9])",
        "Chinese mobile with country code",
        digits=11,
    ),
    _p("mobile", rf"1(?<![0-9]1){_SEP}[3-9](?:{_SEP}[0-9]){{9}}(?![0-9])", "form of a Chinese mobile", digits=11),
    _p(
        "mobile",
        r"[+(1-9](?<![0-9A-Za-z].)(?:(?<=\+)1[ \-.]?\(?[2-9]|(?<=1)[ \-.]?\(?[2-9]|(?<=\()[2-9]|(?<=[2-9]))[0-9]{2}(?:\)[ ]?|[ \-.])?[2-9][0-9]{2}[ \-.]?[0-9]{4}(?![0-9A-Za-z])",
        "form of a North American number",
        checksums.american_phone,
        digits=10,
    ),
    _p("mobile", r"\+[1-9][0-9](?:[ \-.()]{0,2}[0-9]){6,12}(?![0-9])", "international form", digits=8),
    _p(
        "landline",
        r"[(0](?<![0-9A-Za-z(].)0?(?<=0)[1-9][0-9]{1,2}\)?[ \-]{0,2}[2-9][0-9]{6,7}(?:[ \-转]{1,2}[0-9]{1,5})?(?![0-9A-Za-z])",
        "form of a Chinese landline",
        checksums.landline,
        digits=10,
    ),
    _p(
        "landline",
        rf"{_PHONE_CUE}{_GAP}((?:[0-9]{{3,4}}[ \-]?)?[2-9][0-9]{{6,7}}){_R}",
        "behind a cue word",
        cues="座机 固话 电话 热线 传真 拨 tel",
        digits=7,
    ),
    _p(
        "landline",
        r"[2-8](?<![0-9A-Za-z.,\-][2-8])[0-9]{7}(?![0-9A-Za-z.,\-元块件个台部条次人年万亿粒瓶])",
        "form of a local number",
        checksums.local_phone,
        digits=8,
    ),
    _p(
        "mobile",
        r"(?<![A-Za-z])(?:phone|mobile|tel|cell|call|text|ring|whatsapp|number)(?: ?(?:me|us|no\.?|is|at|on|number|:|#)){0,3} ?(\+?[0-9(][0-9 \-().]{5,18}[0-9])(?![0-9A-Za-z])",
        "behind a cue word",
        _digits(7),
        cues="phone mobile tel cell call text ring whatsapp number",
        digits=7,
    ),
    _p(
        "device_id",
        r"(?:35|86|99|01)(?<![0-9A-Za-z]..)[0-9]{13}(?![0-9A-Za-z])",
        "IMEI with its check digit",
        checksums.device,
        digits=15,
    ),
    _p(
        "bank_card",
        r"[2-6](?<![0-9A-Za-z][2-6])[0-9](?:[ \-]{0,2}[0-9]){14,17}(?![0-9A-Za-z])",
        "passes Luhn",
        checksums.card,
        digits=16,
    ),
    _p(
        "bank_card",
        rf"(?:银行卡|信用卡|借记卡|储蓄卡|卡|账户|[工农建招中交][行商]|visa|mastercard|card|account)(?:号码?)?(?: ?(?:number|no\.?|is))?{_GAP}([2-9](?:[ \-]{{0,2}}[0-9]){{14,18}}){_R}",
        "behind a cue word",
        cues="卡 账户 行 商 visa card account",
        digits=15,
    ),
    _p(
        "passport",
        rf"(?:护照|港澳通行证|通行证|证件|passport)(?: ?(?:number|no\.?|is))?{_GAP}([A-Z]{{1,2}}[0-9]{{7,8}}){_R}",
        "behind a cue word",
        cues="护照 通行证 证件 passport",
        digits=7,
    ),
    _p("passport", rf"[EGDSPHegdsph](?<![0-9A-Za-z].)[A-Za-z]?[0-9]{{7,8}}{_R}", "form of a passport number", digits=7),
    _p(
        "plate",
        rf"[{_PROVINCE}][A-HJ-NP-Za-hj-np-z][·•\- ]?[A-HJ-NP-Za-hj-np-z0-9]{{4,5}}[A-HJ-NP-Za-hj-np-z0-9挂学警港澳](?![0-9A-Za-z])",
        "form of a number plate",
        checksums.has_digit,
        cues=" ".join(_PROVINCE),
        exact=True,
    ),
    _p("wechat", r"(?<![0-9A-Za-z])(wxid_[0-9a-z_]{4,24})(?![0-9A-Za-z_])", "form of a WeChat id", cues="wxid_"),
    _p(
        "wechat",
        rf"(?:微信|薇信|威信|徽信|weixin|wechat|(?<![A-Za-z])[vw][x信]|[加+] ?v|(?<![A-Za-z])v(?=[ ]?[:：是]))(?:号码?|id|联系|找我|同号|私聊|搜索?|加)?(?: is )?{_GAP}([A-Za-z](?<![A-Za-z]{{2}})[A-Za-z0-9_\-]{{4,19}}|[0-9]{{6,12}}){_R}",
        "behind a cue word",
        _like_a_handle,
        cues="微信 薇信 威信 徽信 weixin wechat vx wx v信 w信 加v +v v: v： v是",
    ),
    _p(
        "wechat",
        r"(?<![0-9A-Za-z])((?:vx|wx)[a-z][a-z0-9_\-]{3,19})(?![0-9A-Za-z])",
        "joined to its cue",
        checksums.has_digit,
        cues="vx wx",
    ),
    _p(
        "qq",
        rf"(?:扣扣|企鹅|q[ ]?q|(?<![A-Za-z])q)(?:群|号|码){{0,3}}{_GAP}([1-9][0-9]{{4,11}})(?![0-9])",
        "behind a cue word",
        cues="扣扣 企鹅 q",
        digits=5,
    ),
    _p("qq", rf"群(?:号码?)?{_GAP}([1-9][0-9]{{5,11}})(?![0-9])", "behind a cue word", cues="群", digits=6),
    _p(
        "order_number",
        r"#[ ]{0,3}([0-9]{2,6}(?:[ \-][0-9]{2,6}){1,6})(?![0-9A-Za-z])",
        "behind a number sign",
        _digits(7),
        cues="#",
        digits=7,
    ),
    _p(
        "order_number",
        r"[0-9](?<![0-9A-Za-z][0-9])[0-9]{5,19}(?=是?(?:我的?|这个)?(?:[订定]单|单号))",
        "before a cue word",
        cues="单",
        digits=6,
    ),
    # what is left of long numbers: an order, an account, a shipment; nothing that a reader of reviews needs
    _p(
        "order_number",
        r"[0-9](?<![0-9A-Za-z][0-9])(?:\-?[0-9]){10,31}(?![0-9A-Za-z])",
        "a long number",
        checksums.number,
        digits=11,
    ),
    _p(
        "order_number",
        rf"[A-Z](?<![0-9A-Za-z].)(?<!(?=IMEI|MEID|SN|QQ|VX|WX|ID|TEL).)[A-Z]{{0,3}}-?[0-9]{{4,24}}(?:-[0-9]{{2,20}}){{0,3}}{_R}",
        "letters and a long number",
        _digits(9),
        digits=4,
    ),
    _p(
        "user_name",
        rf"(?:会员名|会员号|会员|用户名|昵称|网名|账号|帐号|账户名?|淘宝id|旺旺|(?<![A-Za-z])(?:id|user ?name|user|handle|nickname|login|log in as|account))(?: ?(?:is|:|：|叫|是|为)){{0,2}}{_GAP}([A-Za-z0-9_](?<![A-Za-z0-9_]{{2}})[A-Za-z0-9_.\-]{{1,28}}[A-Za-z0-9_]){_R}",
        "behind a cue word",
        _like_a_handle,
        cues="会员 用户名 昵称 网名 账 帐 id 旺旺 user handle nickname login log account",
    ),
    _p(
        "user_name",
        r"(?:会员名|用户名|昵称|网名|账号|帐号|账户名|旺旺|(?<![A-Za-z])id)(?:叫|是|为|：|:){1,2} ?([\u4e00-\u9fffA-Za-z0-9_]{2,16})(?![\u4e00-\u9fffA-Za-z0-9_])",
        "behind a cue word",
        cues="会员名 用户名 昵称 网名 账 帐 旺旺 id",
    ),
    _p(
        "user_name",
        r"(?:昵称|网名|旺旺)([\u4e00-\u9fffA-Za-z0-9_]{2,8})(?![\u4e00-\u9fffA-Za-z0-9_])",
        "behind a cue word",
        cues="昵称 网名 旺旺",
    ),
    _p(
        "user_name",
        r"(?<![0-9A-Za-z._])@([\u4e00-\u9fffA-Za-z0-9_](?:[\u4e00-\u9fffA-Za-z0-9_.\-]{0,18}[\u4e00-\u9fffA-Za-z0-9_])?)",
        "behind @",
        cues="@",
    ),
)
