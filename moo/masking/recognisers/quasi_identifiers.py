"""Patterns of levels 3 and 4: ages, dates, amounts, postcodes, coordinates, minors."""

from moo.masking.recognisers.pattern import Pattern, pattern

_ZH = "零〇一二三四五六七八九十百千两"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_DAY = "(?:3[01]|[12][0-9]|0?[1-9])"
_MONTH_CUES = "jan feb mar apr may jun jul aug sep oct nov dec"
_CHILD = r"(?:孩子|宝宝|宝贝|儿子|女儿|小孩|小朋友|女孩|男孩|闺女|娃娃|娃|孙子|孙女|外孙|侄子|侄女)"
_EN_CHILD = r"(?:child|children|son|daughter|boy|girl|kid|baby|grandson|granddaughter|nephew|niece|toddler)"
_EN_SMALL = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
_GAP = r"[ \t：:=是为号码#.,，\-]{0,4}"

QUASI: tuple[Pattern, ...] = (
    pattern(
        "date",
        rf"""
        [0-9](?<![0-9.][0-9])
        (?:(?:[0-9]{{3}}|[0-9])[年./\-](?:1[0-2]|0?[1-9])(?:[月./\-]{_DAY}(?![0-9])[日号]?|月))
        """,
        "form of a date",
        cues="年 . / -",
    ),
    pattern("date", rf"(?<![0-9])(?:1[0-2]|0?[1-9])月{_DAY}[日号]?", "form of a date", cues="月"),
    pattern("date", r"[12](?<![0-9.][12])[0-9]{3}年(?:底|初|末|中)?", "a year", cues="年"),
    pattern(
        "date",
        r"""
        (?:十[一二]?|[一二三四五六七八九])月
        (?:初[一二三四五六七八九十]|[二三]?十[一二三四五六七八九]?|[一二三四五六七八九])[日号]
        """,
        "date in words",
        cues="月",
    ),
    pattern(
        "date",
        rf"(?<![0-9.]){_DAY}[/.]{_DAY}[/.](?:19|20)[0-9]{{2}}(?![0-9])",
        "form of a date",
        cues="/1 /2 .1 .2",
        digits=4,
    ),
    pattern(
        "date",
        rf"""
        (?<![A-Za-z])
        ({_MONTH}\.?[ ]{_DAY}(?:st|nd|rd|th)?(?:,?[ ](?:19|20)[0-9]{{2}})?)(?![0-9A-Za-z])
        """,
        "date in words",
        cues=_MONTH_CUES,
    ),
    pattern(
        "date",
        rf"""
        (?<![0-9A-Za-z])
        ({_DAY}(?:st|nd|rd|th)?(?:[ ]of)?[ ]{_MONTH}\.?(?:,?[ ](?:19|20)[0-9]{{2}})?)(?![0-9A-Za-z])
        """,
        "date in words",
        cues=_MONTH_CUES,
    ),
    pattern("age", r"[0-9](?<![0-9.][0-9])(?:(?<=1)[01][0-9]|[0-9])?[ ]?(?:周岁|岁)", "number before 岁", cues="岁"),
    pattern("age", rf"[{_ZH}]{{1,4}}[ ]?(?:周岁|岁)(?!月)", "number before 岁", cues="岁"),
    pattern(
        "age",
        r"(?<![0-9A-Za-z.])((?:1[01])?[0-9]{1,2}[ \-]?(?:years?|yrs?|yr\.)[ \-](?:old|of[ ]age))(?![A-Za-z])",
        "years old",
        cues="old age",
    ),
    pattern(
        "amount",
        r"""
        [0-9](?<![0-9.,][0-9])[0-9]{0,8}(?:,[0-9]{3}){0,3}(?:\.[0-9]{1,2})?
        [ ]?[多余来]?[十百千万]?(?:元|块钱|块)
        """,
        "number before a unit of money",
        cues="元 块",
    ),
    pattern(
        "amount",
        rf"[{_ZH}](?<![{_ZH}][{_ZH}])(?:[{_ZH}多几]{{1,6}}(?:元|块钱|块)|块钱|(?<=十)[元块])",
        "number before a unit of money",
        cues="元 块",
    ),
    pattern("amount", r"[¥￥$€£][ ]?[0-9]{1,9}(?:,[0-9]{3}){0,3}(?:\.[0-9]{1,2})?(?![0-9])", "behind a sign of money"),
    pattern(
        "amount",
        r"""
        (?<![0-9A-Za-z.])
        ([0-9]{1,9}(?:,[0-9]{3}){0,3}(?:\.[0-9]{1,2})?
            [ ]?(?:rmb|dollars?|bucks?|quid|pounds|euros?|cents|usd|eur|gbp|cny)
        )(?![A-Za-z])
        """,
        "number before a unit of money",
        cues="rmb dollar buck quid pounds euro cents usd eur gbp cny",
    ),
    pattern(
        "amount",
        r"(?<![A-Za-z])((?:rmb|usd|eur|gbp|cny)[ ]?[0-9]{1,9}(?:,[0-9]{3}){0,3}(?:\.[0-9]{1,2})?)(?![0-9])",
        "behind a unit of money",
        cues="rmb usd eur gbp cny",
    ),
    pattern(
        "postcode",
        rf"""
        (?:邮政编码|邮编|zip[ ]code|zip|postcode|postal[ ]code)(?:[ ]is)?
        {_GAP}([0-9]{{5,6}}(?:-[0-9]{{4}})?)(?![0-9])
        """,
        "behind a cue word",
        cues="邮编 邮政 zip post",
        digits=5,
    ),
    pattern("postcode", r"[0-9](?<![0-9A-Za-z][0-9])[0-9]{5}(?=的?邮编)", "before a cue word", cues="邮编", digits=6),
    pattern(
        "postcode",
        r"""
        [A-Z](?<![0-9A-Za-z].)
        (?:[A-Z]?[0-9][0-9A-Z]?[ ]?[0-9][A-Z]{2}|[0-9][A-Z][ ][0-9][A-Z][0-9])(?![0-9A-Za-z])
        """,
        "British or Canadian form",
        digits=1,
    ),
    pattern(
        "postcode",
        r"""
        [A-Z](?<![A-Za-z].)
        (?<=(?=(?:
            A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]
            |O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]
        )[ ]).)
        [A-Z][ ]([0-9]{5}(?:-[0-9]{4})?)(?![0-9])
        """,
        "behind a state",
        digits=5,
    ),
    pattern(
        "precise_location",
        r"""
        [0-9\-](?<![0-9.].)[0-9]{0,3}\.[0-9]{3,8}°?[NESW]?
        [,， ]{1,2}-?[0-9]{1,3}\.[0-9]{3,8}(?![0-9])°?[NESW]?(?![A-Za-z])
        """,
        "form of coordinates",
        cues=".",
        digits=6,
    ),
    pattern(
        "precise_location",
        r"""
        [NSns北南]纬?[ ]?[0-9]{1,2}\.[0-9]{1,8}°?
        [,， ]{0,2}[EWew东西]经?[ ]?[0-9]{1,3}\.[0-9]{1,8}°?(?![0-9])
        """,
        "form of coordinates",
        digits=3,
    ),
    pattern(
        "minor", rf"[0-9](?<![0-9.][0-9])[0-9]?(?:个半?月|岁半|岁)[大多]?的?{_CHILD}", "a child's age", cues="月 岁"
    ),
    pattern(
        "minor",
        rf"[一二三四五六七八九十两](?<![{_ZH}].)[一二三四五六七八九]?(?:个半?月|岁半|岁)[大多]?的?{_CHILD}",
        "a child's age",
        cues="月 岁",
    ),
    pattern(
        "minor",
        rf"(?:上|读|念)?(?:幼儿园|小学|初中|中班|大班|小班)(?:的)?{_CHILD}",
        "a child at school",
        cues="幼儿园 小学 初中 中班 大班 小班",
    ),
    pattern(
        "minor",
        rf"""
        (?<![0-9A-Za-z])
        ((?:1[0-7]|[1-9]|{_EN_SMALL})[ \-]?(?:years?|yrs?|months?|weeks?)[ \-]old(?:[ ]{_EN_CHILD})?)
        (?![A-Za-z])
        """,
        "a child's age",
        cues="old",
    ),
    pattern(
        "minor",
        rf"(?<![A-Za-z])((?:teenaged?|infant|newborn|little)[ ]{_EN_CHILD})(?![A-Za-z])",
        "a child",
        cues="teen infant newborn little",
    ),
)
