"""Errors of arguments: one sentence in English, one in Chinese."""

import math
from collections.abc import Callable

import pytest

from moo.core import validate
from moo.core.errors import InputError
from moo.core.messages import render


@pytest.mark.parametrize(
    ("check", "english", "chinese"),
    [
        (
            lambda: validate.positive(epsilon=-1.0, way_out="use math.inf to train without DP"),
            "epsilon must be > 0, got -1.0; use math.inf to train without DP.",
            "epsilon 应大于 0，实际为 -1.0；若不使用差分隐私训练，请写 math.inf。",
        ),
        (lambda: validate.positive(n="a"), "n must be a number, got 'a'.", "n 应为数值，实际为 'a'。"),  # type: ignore[arg-type]
        (lambda: validate.positive(n=True), "n must be a number, got True.", "n 应为数值，实际为 True。"),
        (lambda: validate.finite(n=math.inf), "n must be finite, got inf.", "n 应为有限数，实际为 inf。"),
        (lambda: validate.in_range(0, 5, n=6), "n must be between 0 and 5, got 6.", "n 应在 0 到 5 之间，实际为 6。"),
        (
            lambda: validate.whole(1, 9, n=2.5),  # type: ignore[arg-type]
            "n must be a whole number, got 2.5.",
            "n 应为整数，实际为 2.5。",
        ),
        (
            lambda: validate.whole(1, 1000, n=0),
            "n must be between 1 and 1,000, got 0.",
            "n 应在 1 到 1,000 之间，实际为 0。",
        ),
        (
            lambda: validate.one_of(("drop", "keep"), rows="dorp"),
            "rows must be one of drop, keep, got 'dorp'. Did you mean 'drop'?",
            "rows 应为下列之一：drop, keep；实际为 'dorp'。是否想写 'drop'？",
        ),
    ],
)
def test_the_error_says_what_must_be_and_what_came(check: Callable[[], object], english: str, chinese: str) -> None:
    with pytest.raises(InputError) as caught:
        check()
    assert str(caught.value) == english
    assert render(caught.value.message, "zh") == chinese
