"""Patterns of web addresses, e-mail addresses, IP addresses and devices."""

import ipaddress

from moo.masking.recognisers import checksums
from moo.masking.recognisers.pattern import END, GAP, Pattern, at_least, pattern

_URL_TAIL = r"[A-Za-z0-9._~:/?#@!$&'()*+,;=%\-]"
_TOP_DOMAIN = "com|cn|net|org|edu|gov|io|top|xyz|cc|shop|info|vip|link|hk|tw|uk|de|fr|jp|us"
_DOT = r"(?:\.|点|dot|[(（\[]dot[)）\]])"


def _ip(text: str) -> bool:
    """Return True if the text is an IP address of eight characters or more, whatever port follows."""
    try:
        ipaddress.ip_address(text.partition(":")[0] if "." in text else text)
    except ValueError:
        return False
    return len(text) >= 8 and checksums.has_digit(text)


WEB: tuple[Pattern, ...] = (
    pattern("url", rf"(?:https?://|www\.){_URL_TAIL}{{3,300}}", "web address", cues="http www."),
    pattern(
        "email",
        r"""
        (?<![A-Za-z0-9._%+\-])
        ([A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,4})
        """,
        "address with @",
        cues="@",
    ),
    pattern(
        "email",
        rf"""
        (?<![A-Za-z0-9._%+\-])
        ([A-Za-z0-9._%+\-]{{1,64}}[ ]?
            (?:@|艾特|[(（\[]at[)）\]]|\#|[ ]at[ ])
            [ ]?[A-Za-z0-9\-]{{1,40}}
            (?:[ ]?{_DOT}[ ]?[A-Za-z0-9\-]{{1,40}}){{0,2}}
            [ ]?{_DOT}[ ]?(?:{_TOP_DOMAIN})
        ){END}
        """,
        "address in words",
        cues="dot 点 .com .cn .net .org .edu .gov .io",
    ),
    pattern(
        "url",
        rf"""
        (?<![A-Za-z0-9@.\-])
        ((?:[A-Za-z0-9\-]{{1,40}}\.){{1,4}}
            (?:com|cn|net|org|io|top|xyz|cc|shop|info|vip|link)
            (?:[/?:]{_URL_TAIL}{{0,300}})?
        )(?![A-Za-z0-9@\-])
        """,
        "domain name",
        cues=".com .cn .net .org .io .top .xyz .cc .shop .info .vip .link",
    ),
    pattern(
        "url",
        rf"\.(?<![A-Za-z0-9@\-].)(?:com|cn|net|org)/{_URL_TAIL}{{3,300}}",
        "a path behind a domain that was cut off",
        cues=".com/ .cn/ .net/ .org/",
    ),
    pattern(
        "ip",
        r"""
        [0-9](?<![0-9.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}
        (?![0-9])(?!\.[0-9])(?::[0-9]{1,5}(?![0-9]))?
        """,
        "IPv4 address",
        _ip,
        cues=".",
        digits=7,
    ),
    pattern(
        "ip",
        r"[0-9A-Fa-f:](?<![0-9A-Fa-f:.].)[0-9A-Fa-f]{0,3}:[0-9A-Fa-f:]{3,36}(?![0-9A-Za-z:])",
        "IPv6 address",
        _ip,
        cues=":",
        exact=True,
    ),
    pattern(
        "device_id",
        rf"[0-9A-Fa-f](?<![0-9A-Za-z].)[0-9A-Fa-f]{{7}}-(?:[0-9A-Fa-f]{{4}}-){{3}}[0-9A-Fa-f]{{12}}{END}",
        "UUID",
        cues="-",
        exact=True,
    ),
    pattern(
        "device_id",
        rf"[0-9A-Fa-f](?<![0-9A-Za-z].)[0-9A-Fa-f](?:[:\-][0-9A-Fa-f]{{2}}){{5}}{END}",
        "MAC address",
        cues=": -",
        exact=True,
    ),
    pattern(
        "device_id",
        rf"""
        (?:IMEI|MEID|设备号|设备码|序列号?|串号|device[ ]?(?:id|no\.?)?|serial(?:[ ]number|[ ]no\.?)?|(?<![A-Za-z])s/?n)
        {GAP}([0-9A-Za-z\-]{{8,40}}){END}
        """,
        "behind a cue word",
        at_least(6),
        cues="imei meid 设备 序列 串号 device serial sn s/n",
    ),
)
