"""The one gate between the rows of all users and a step that prepares them.

A step reaches the rows through `Preparation.step` alone, and must declare its scope: whose rows decide what becomes of a row. What is
declared is tried: the step is applied again to single users alone, to some that it changed and to some that it left as they were.
Where one fares otherwise alone than among all, the step reads other users, and is written down as of scope "dataset", which
withdraws the DP claim.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd

from moo.core.trial_record import Transformation

TRIED = 4  # users of each kind that a step is applied to alone

Frame = pd.DataFrame
Change = Callable[[Frame], Frame]


class Preparation:
    """Rows on their way to records; no step gets at them without a scope.

    Args:
        frame: The rows, by a unique index that no step changes.
        owners: User of each row, by the same index.
    """

    def __init__(self, frame: Frame, owners: "pd.Series[Any]") -> None:
        self._frame, self._owners = frame, owners
        self._steps: list[Transformation] = []

    @property
    def steps(self) -> tuple[Transformation, ...]:
        """What was done, in order, each with the scope that it was found to have."""
        return tuple(self._steps)

    @property
    def rows(self) -> Frame:
        """The rows as the declared steps have left them: a copy, so that no other step reaches them."""
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
        """Apply a step, and write down what it did and whose rows it read.

        Args:
            name: Name of the step.
            change: Returns the rows that stay, with their values; keeps their index.
            scope: Declared scope. Anything but "dataset" is tried.
            why, detail: As in `Transformation`.
            emptied: Whether rows that are dropped count as changed.
        """
        before, after = self._frame, change(self._frame)
        changed = _changed(before, after)
        if scope != "dataset" and self._reads_others(change, after, changed):
            detail = f"declared as of scope {scope}, but what becomes of a row depends on other users"
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
        """Return True if some user's rows become others where the user is alone."""
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
