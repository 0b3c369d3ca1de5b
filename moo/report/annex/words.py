"""Words of the annex, in English and Chinese, from templates/annex.toml."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from moo.core.errors import InputError


@cache
def _file() -> Mapping[str, Any]:
    return tomllib.loads((resources.files("moo.report") / "templates" / "annex.toml").read_text(encoding="utf-8"))


def words(lang: str) -> Mapping[str, str]:
    """Return all texts of a language.

    Raises:
        InputError: If the language is not "en" or "zh".
    """
    if lang not in ("en", "zh"):
        raise InputError("lang in ['en', 'zh'] must hold, but got lang={lang!r}.", lang=lang)
    texts: Mapping[str, str] = _file()[lang]
    return texts


def fact_words(key: str, lang: str) -> tuple[str, str]:
    """Return a fact's name and kind: "share", "number", "days" or "level"; an unknown key names itself."""
    english, chinese, kind = _file()["facts"].get(key, (key, key, "number"))
    return (english if lang == "en" else chinese), kind


def article_words(articles: str, lang: str) -> str:
    """Return articles as a language cites them: "PIPL 51(3)" is 个人信息保护法第51条第3项."""
    if lang == "en":
        return articles
    laws: Mapping[str, str] = _file()["laws_zh"]
    out = []
    for article in articles.split("; "):
        law = next((name for name in laws if article.startswith(name)), "")
        rest = article[len(law) :].strip()
        numbered = re.fullmatch(r"(\d+)((?:\(\w+\))*)(?: para (\d+))?", rest)
        if not law or (rest and numbered is None):
            out.append(article)
        elif numbered is None:
            out.append(laws[law].strip())
        else:
            item = numbered[2] if law == "GDPR" else re.sub(r"\((\w+)\)", r"第\1项", numbered[2])
            out.append(f"{laws[law]}第{numbered[1]}条{f'第{numbered[3]}款' if numbered[3] else ''}{item}")
    return "；".join(out)
