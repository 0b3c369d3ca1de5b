"""Languages of the terminal: no line, error or help lacks Chinese, and nothing of it is left in English."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

import moo.cli
from moo.cli.arguments import Parser
from moo.cli.console import wrap
from moo.cli.main import main, parser
from moo.core.messages import catalogue, fields

# Functions that print a template -> place of the template among their arguments
PRINTING = {"words": 0, "Message": 0, "say": 1, "heading": 1}
ERRORS = ("InputError", "PolicyError", "StorageError", "OptionError", "MachineError")
# Four English words in a row, none of them a name with a dot, dash, underscore or slash
SENTENCE = re.compile(r"(?<![\w./\-=`])(?:[A-Za-z]{2,} ){3}[a-z]{2,}(?![\w/\-=.])")


def printed() -> Iterator[tuple[str, str]]:
    """Yield place and template of everything that the command line prints."""
    for file in sorted(Path(moo.cli.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "")
            place = f"{file.name}:{node.lineno}"
            at = 0 if name in ERRORS else PRINTING.get(name)
            parts = node.args if name == "headers" else [] if at is None else node.args[at : at + 1]
            for part in parts:
                assert not isinstance(part, ast.JoinedStr | ast.BinOp), f"{place} prints no constant template"
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield place, part.value


def parsers(one: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and all below it."""
    yield one
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def test_every_printed_template_has_chinese_with_the_same_values() -> None:
    known = catalogue("zh")
    templates = list(printed())
    assert len(templates) > 200
    assert [(place, t) for place, t in templates if t not in known] == []
    assert [(place, t) for place, t in templates if fields(t) != fields(known[t])] == []


def test_every_help_text_has_chinese() -> None:
    known = catalogue("zh")
    missing = []
    for one in parsers(parser()):
        texts = [one.summary] if isinstance(one, Parser) else []
        for action in one._actions:
            assert action.help or isinstance(action, argparse._SubParsersAction), (one.prog, action.dest)
            texts += [action.help] if action.help and action.help is not argparse.SUPPRESS else []
        missing += [(one.prog, text) for text in texts if getattr(text, "template", text) not in known]
    assert missing == []


@pytest.mark.parametrize("command", [one.prog.split()[1:] for one in parsers(parser())], ids=" ".join)
def test_the_help_of_every_command_is_chinese_and_fits(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--lang", "zh", *command, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("用法：moo")
    assert not SENTENCE.findall(shown)
    body = shown.partition("\n\n")[2]
    assert all(cell_len(line) <= 80 for line in body.splitlines()), body


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "缺少必需的参数：STUDY"),
        (["rnu"], "COMMAND 应为"),
        (["run", "reviews", "--trails", "3"], "未知选项 '--trails'"),
        (["audit", "x", "--epsilon"], "需要一个值"),
    ],
)
def test_a_wrong_command_line_is_said_in_chinese(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--lang", "zh", *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_an_unfit_option_is_said_in_chinese_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--lang", "zh", "audit", "x", "--epsilon", "0"], ["audit", "x", "--epsilon", "0", "--lang=zh"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err == "moo: --epsilon 应为大于 0 的数（inf 表示不用），实际为 '0'。\n"


def test_the_language_is_the_option_then_the_variable_then_the_locale(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def speaks_chinese(*arguments: str) -> bool:
        assert main([*arguments, "audit", "x", "--epsilon", "0"]) == 2
        return "应为" in capsys.readouterr().err

    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert not speaks_chinese()
    monkeypatch.setenv("MOO_LANG", "zh")
    assert speaks_chinese()
    assert not speaks_chinese("--lang", "en")
    monkeypatch.delenv("MOO_LANG")
    assert not speaks_chinese()
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert speaks_chinese()
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert not speaks_chinese()


def test_a_front_is_shown_in_chinese(
    study: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOO_LANG", "zh")
    assert main(["front", "--out", str(study[1])]) == 0
    shown = capsys.readouterr().out
    assert "可行前沿与锚点" in shown
    assert "推荐：试验" in shown
    assert not SENTENCE.findall(shown)


def test_a_mistyped_study_is_refused_in_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "zh", "run", "nosuch"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("moo: ")
    assert not SENTENCE.findall(shown)


def test_chinese_is_wrapped_by_columns_and_paths_stay_whole() -> None:
    text = "已写入：/a/path/that/must/stay/whole/front.csv，共三千条记录。" + "这是一段没有空格的中文，" * 6
    lines = wrap(text, 40)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert any("/a/path/that/must/stay/whole/front.csv" in line for line in lines)
    assert all(cell_len(line) <= 40 or "/a/path" in line for line in lines)
    assert not any(line[0] in "，。：）" for line in lines)
