"""What a study writes in English, said in Chinese: its reasons, claims, notes and notices, from templates/chinese.toml.

Results keep one language, English, so that what is signed and compared is one text. A page in Chinese finds the sentence by the
template that formed it, and fills the Chinese one with the same values.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources

_JOINTS = {"; ": "；", ", ": "、"}
_NAME = r"[\w.-]*[\d_][\w.-]*"  # of a rule, a limit or a number, the same in every language


def said(text: str, lang: str) -> str:
    """A text of a study in a page's language; what is not known stays as it is.

    Args:
        text: English, as the study wrote it.
        lang: "en", or a tag of Chinese.
    """
    return text if lang == "en" else _chinese(text)


def sentence(text: str, t: Mapping[str, str]) -> str:
    """The same as a sentence of a page, whose words are `t`."""
    shown = said(text, t["lang"])
    return f"{shown[:1].upper()}{shown[1:]}{t['stop']}"


def _chinese(text: str) -> str:
    words, templates = _known()
    plain = text.strip("'").replace("_", " ")
    if plain in words:
        return words[plain]
    for pattern, chinese in templates:
        found = pattern.fullmatch(text)
        if found:
            return chinese.format(*map(_chinese, found.groups()))
    for joint, full in _JOINTS.items():
        parts = text.split(joint)
        shown = [_chinese(part) for part in parts] if len(parts) > 1 else []
        if shown and all(s != p or re.fullmatch(_NAME, p) for s, p in zip(shown, parts, strict=True)):
            return full.join(shown)
    name, _, value = text.rpartition(" ") if not text.endswith(" %") else text.removesuffix(" %").rpartition(" ")
    if name in words and re.fullmatch(r"[-+–\d.,]+", value):
        return f"{words[name]} {text.removeprefix(name).strip()}"
    return text


@cache
def _known() -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
    """Words, and patterns with what they become: those that say more before those that say less."""
    file = tomllib.loads((resources.files("moo.report") / "templates" / "chinese.toml").read_text(encoding="utf-8"))
    most = sorted(file["sentences"].items(), key=lambda item: -len(item[0].replace("{}", "")))
    return file["words"], [(_pattern(english), chinese) for english, chinese in most]


def _pattern(template: str) -> re.Pattern[str]:
    """A value holds no ";", which joins sentences; one at the end may be several of them."""
    inner = "([^;]+?)".join(map(re.escape, template.removesuffix("{}").split("{}")))
    return re.compile(inner + ("(.+)" if template.endswith("{}") else ""), re.DOTALL)
