"""The two READMEs say the same: commands, examples, figures and places."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "README.zh-CN.md"]


def blocks(page: str, language: str) -> list[list[str]]:
    """Lines of each fenced block, without their comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, re.S)
    return [[re.sub(r"\s*(?:^|\s)#\s.*", "", line) for line in block.splitlines()] for block in found]


def test_both_pages_have_the_same_commands_examples_and_figures() -> None:
    for language in ("sh", "text", "toml", "python"):
        first, second = (blocks(page, language) for page in PAGES)
        assert first == second, language
        assert first


def test_both_pages_have_the_same_numbers_links_and_sections() -> None:
    texts = [re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S) for page in PAGES]
    for pattern in (r"\]\(docs/[^)]*\)", r"[0-9]+ (?:MB|GiB)", r"\.[0-9]{2}\b", r"`moo [a-z ]+`"):
        first, second = (sorted(set(re.findall(pattern, text))) for text in texts)
        assert first == second, pattern
    headings = [len(re.findall(r"^## ", text, re.M)) for text in texts]
    assert headings[0] == headings[1]
