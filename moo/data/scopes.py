"""Preparation of the rows of all users by steps with a declared and tested scope.

A step reaches the rows through `Preparation.step` alone, and must declare its scope: the rows that decide on the result
for a row. The declaration is tested: the step is applied again to single users alone, to some that it changed and to
some that it did not. If one result differs from that among all users, the step reads other users; it is then recorded
with scope "dataset", which withdraws the DP claim.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd

from moo.core.messages import Message
from moo.core.trial_record import Transformation

# users of each kind that a step is applied to alone
TRIED = 4

Frame = pd.DataFrame
Change = Callable[[Frame], Frame]


class Preparation:
    """Rows in preparation for records; no step reaches them without a scope.

    Args:
        frame: Rows, by a unique index that no step changes.
        owners: User of each row, by the same index.
    """

    def __init__(self, frame: Frame, owners: "pd.Series[Any]") -> None:
        self._frame, self._owners = frame, owners
        self._steps: list[Transformation] = []

    @property
    def steps(self) -> tuple[Transformation, ...]:
        """Steps so far, in order, each with its tested scope."""
        return tuple(self._steps)

    @property
    def rows(self) -> Frame:
        """Copy of the rows after the declared steps, so that no other step reaches them."""
        return self._frame.copy()

    def step(
        self,
        name: str,
        change: Change,
        *,
        scope: Literal["record", "user", "dataset"],
        why: str,
        detail: str = "",
        emptied: bool = False,
    ) -> None:
        """Apply a step, and record its effect and its scope.

        Args:
            name: Name of the step.
            change: Function of the rows that returns the rows to keep, with their values and index.
            scope: Declared scope. Any but "dataset" is tested.
            why, detail: Reason and description, as in `Transformation`.
            emptied: True if dropped rows count as changed.
        """
        before, after = self._frame, change(self._frame)
        changed = _changed(before, after)
        if scope != "dataset" and self._reads_others(change, after, changed):
            detail = Message(
                "declared as of scope {scope}, but what becomes of a row depends on other users", scope=scope
            )
            scope = "dataset"
        dropped = len(before) - len(after)
        rewritten = _changed(before.filter(["text"]), after.filter(["text"]))[after.index]
        n_changed = int(rewritten.sum()) + (dropped if emptied else 0)
        self._steps.append(
            Transformation(
                name=name, scope=scope, detail=detail, before=len(before), after=len(after), changed=n_changed, why=why
            )
        )
        self._frame = after

    def _reads_others(self, change: Change, after: Frame, changed: "pd.Series[bool]") -> bool:
        """Return True if the step has another result for some user alone than among all users."""
        owners = self._owners[self._frame.index]
        touched = owners[changed].unique()
        untouched = owners[~owners.isin(touched)].unique()
        rng = np.random.default_rng(0)
        tried = [u for kind in (touched, untouched) for u in rng.permutation(kind)[:TRIED]]
        kept = owners[after.index]
        return any(not change(self._frame[owners == u]).equals(after[kept == u]) for u in tried)


def _changed(before: Frame, after: Frame) -> "pd.Series[bool]":
    """Return, by the index of the rows before, True where a row was dropped or has another value."""
    out = pd.Series(True, index=before.index)
    shared = [c for c in after.columns if c in before.columns]
    old, new = before.loc[after.index, shared], after[shared]
    out[after.index] = ((old != new) & ~(old.isna() & new.isna())).any(axis=1)
    return out
