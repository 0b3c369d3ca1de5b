"""Patterns of handles: WeChat and QQ at level 1, user names at level 2."""

from moo.masking.recognisers import checksums
from moo.masking.recognisers.pattern import END, GAP, Pattern, like_a_handle, pattern

HANDLES: tuple[Pattern, ...] = (
    pattern("wechat", r"(?<![0-9A-Za-z])(wxid_[0-9a-z_]{4,24})(?![0-9A-Za-z_])", "form of a WeChat id", cues="wxid_"),
    pattern(
        "wechat",
        rf"""
        (?:微信|薇信|威信|徽信|weixin|wechat|(?<![A-Za-z])[vw][x信]|[加+][ ]?v|(?<![A-Za-z])v(?=[ ]?[:：是]))
        (?:号码?|id|联系|找我|同号|私聊|搜索?|加)?(?:[ ]is[ ])?
        {GAP}([A-Za-z](?<![A-Za-z]{{2}})[A-Za-z0-9_\-]{{4,19}}|[0-9]{{6,12}}){END}
        """,
        "behind a cue word",
        like_a_handle,
        cues="微信 薇信 威信 徽信 weixin wechat vx wx v信 w信 加v +v v: v： v是",
    ),
    pattern(
        "wechat",
        r"(?<![0-9A-Za-z])((?:vx|wx)[a-z][a-z0-9_\-]{3,19})(?![0-9A-Za-z])",
        "joined to its cue",
        checksums.has_digit,
        cues="vx wx",
    ),
    pattern(
        "qq",
        rf"(?:扣扣|企鹅|q[ ]?q|(?<![A-Za-z])q)(?:群|号|码){{0,3}}{GAP}([1-9][0-9]{{4,11}})(?![0-9])",
        "behind a cue word",
        cues="扣扣 企鹅 q",
        digits=5,
    ),
    pattern("qq", rf"群(?:号码?)?{GAP}([1-9][0-9]{{5,11}})(?![0-9])", "behind a cue word", cues="群", digits=6),
)

USER_NAMES: tuple[Pattern, ...] = (
    pattern(
        "user_name",
        rf"""
        (?:会员名|会员号|会员|用户名|昵称|网名|账号|帐号|账户名?|淘宝id|旺旺|
            (?<![A-Za-z])(?:id|user[ ]?name|user|handle|nickname|login|log[ ]in[ ]as|account))
        (?:[ ]?(?:is|:|：|叫|是|为)){{0,2}}
        {GAP}([A-Za-z0-9_](?<![A-Za-z0-9_]{{2}})[A-Za-z0-9_.\-]{{1,28}}[A-Za-z0-9_]){END}
        """,
        "behind a cue word",
        like_a_handle,
        cues="会员 用户名 昵称 网名 账 帐 id 旺旺 user handle nickname login log account",
    ),
    pattern(
        "user_name",
        r"""
        (?:会员名|用户名|昵称|网名|账号|帐号|账户名|旺旺|(?<![A-Za-z])id)(?:叫|是|为|：|:){1,2}[ ]?
        ([\u4e00-\u9fffA-Za-z0-9_]{2,16})(?![\u4e00-\u9fffA-Za-z0-9_])
        """,
        "behind a cue word",
        cues="会员名 用户名 昵称 网名 账 帐 旺旺 id",
    ),
    pattern(
        "user_name",
        r"(?:昵称|网名|旺旺)([\u4e00-\u9fffA-Za-z0-9_]{2,8})(?![\u4e00-\u9fffA-Za-z0-9_])",
        "behind a cue word",
        cues="昵称 网名 旺旺",
    ),
    pattern(
        "user_name",
        r"""
        (?<![0-9A-Za-z._])
        @([\u4e00-\u9fffA-Za-z0-9_](?:[\u4e00-\u9fffA-Za-z0-9_.\-]{0,18}[\u4e00-\u9fffA-Za-z0-9_])?)
        """,
        "behind @",
        cues="@",
    ),
)
