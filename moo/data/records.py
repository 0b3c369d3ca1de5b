"""Records: texts with labels, units of privacy, and the columns that the law asks for."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.core.measurement import Span
from moo.core.trial_record import Transformation

Ints = NDArray[np.int64]
# classes of records without labels: texts to write like
UNLABELLED = ("",)


UNDECLARED = Transformation(
    name="undeclared",
    scope="dataset",
    detail="the records were changed by a step that declares no scope",
    why="what nobody declares may have read every user",
)


def first_units(before: int, after: int, *, frozen: bool = False) -> Transformation:
    """Return the step that takes whole units until there are enough records.

    The choice of a unit depends on the size of the others, so that one more unit may move hundreds. It withdraws a DP
    claim, unless the result is a fixed, public data set (`frozen`).

    Args:
        before, after: Numbers of records; both 0 if they were not counted.
        frozen: True if the data are a fixed public snapshot.
    """
    return Transformation(
        name="first_units",
        scope="dataset",
        frozen=frozen,
        detail="whole units in order, until n_records were reached",
        before=before,
        after=after,
        why="fewer records train sooner"
        if frozen
        else "n_records asks for it; who stays depends on the others, so for a DP claim set n_records = 0, and cut "
        "the table "
        "beforehand by a rule that looks at one user at a time",
    )


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records of n texts by U units of privacy.

    Attributes:
        name: Name of the data set.
        texts: Texts to train on, length n.
        labels: Codes 0..C-1 of the classes, shape (n,).
        classes: Names of the classes, length C >= 2; or `UNLABELLED`.
        units: Codes 0..U-1 of the owners, shape (n,).
        unit_ids: Stable identities for keyed hashing, length U.
        unit_name: "customer", "user" or "record".
        language: "zh" or "en", as declared; empty if not declared, since no step may guess it from all texts.
        gold: True spans of personal information where they are known, else empty; length n.
        fields: The record's own structured fields by entity type, for a masker to look for in the text; length n.
        columns: Name -> shape (n,): consents, dates and the like, see `moo.data.legal.gates`.
        groups: Name -> shape (n,) codes, -1 where unknown: groups whose accuracy is compared.
        transformations: Steps of the preparation, each with its scope.
        licence: Licence of the texts.
        declaration: Account of the synthetic parts of the data; empty if there are none.
        fixed_classes: True if the classes were declared: then a class without a record stays.
        sealed: Digest of the records after the last declared step; see `intact`.
    """

    name: str
    texts: tuple[str, ...]
    labels: Ints
    classes: tuple[str, ...]
    units: Ints
    unit_ids: tuple[str, ...]
    unit_name: str
    language: str
    gold: tuple[tuple[Span, ...], ...]
    fields: tuple[Mapping[str, str], ...]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    groups: Mapping[str, Ints] = field(default_factory=dict)
    transformations: tuple[Transformation, ...] = ()
    licence: str = ""
    declaration: str = ""
    fixed_classes: bool = False
    sealed: str = ""

    def __post_init__(self) -> None:
        n = len(self.texts)
        if n == 0:
            raise InputError(
                "data must hold at least one record, but got 0 records in {name}; check the source.", name=self.name
            )
        lengths = {
            "labels": len(self.labels),
            "units": len(self.units),
            "gold": len(self.gold),
            "fields": len(self.fields),
        }
        lengths |= {f"columns.{k}": len(v) for k, v in self.columns.items()}
        lengths |= {f"groups.{k}": len(v) for k, v in self.groups.items()}
        for name, length in lengths.items():
            if length != n:
                raise InputError(
                    "{name} must have one entry a record ({n}), but got {length} in {name2}.",
                    name=name,
                    n=n,
                    length=length,
                    name2=self.name,
                )
        if len(self.classes) < 2 and self.classes != UNLABELLED:
            raise InputError(
                "data must hold at least two classes, but every one of {n} records in {name} is "
                "{classes!r}; check the label column.",
                n=n,
                name=self.name,
                classes="".join(self.classes),
            )
        if int(self.units.max()) >= len(self.unit_ids) or int(self.units.min()) < 0:
            raise InputError(
                "units must be codes below {n_unit_ids}, but got {max}.",
                n_unit_ids=len(self.unit_ids),
                max=int(self.units.max()),
            )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_units(self) -> int:
        return len(self.unit_ids)

    @property
    def intact(self) -> bool:
        """Return True if only declared steps have changed the records since they were loaded."""
        return self.sealed == self.digest

    def seal(self) -> "Records":
        """Return the same records, marked as the result of the declared steps."""
        return dataclasses.replace(self, sealed=self.digest)

    def declared(self) -> tuple[Transformation, ...]:
        """Return the steps of the preparation, with one of scope "dataset" for changes that no step declares."""
        return self.transformations if self.intact else (*self.transformations, UNDECLARED)

    def take(self, rows: NDArray[Any], *also: Transformation) -> "Records":
        """Return the records at the given positions (or under a mask), with new codes of the units.

        Args:
            rows: Positions, or a mask of shape (n,).
            also: Step to declare. Without one the records are a part of these, or changed by an undeclared step.
        """
        taken = self._taken(rows, *also)
        return taken.seal() if also and self.intact else taken

    def _taken(self, rows: NDArray[Any], *also: Transformation) -> "Records":
        at = np.flatnonzero(rows) if rows.dtype == bool else rows
        kept, units = np.unique(self.units[at], return_inverse=True)
        return dataclasses.replace(
            self,
            texts=tuple(self.texts[i] for i in at),
            labels=self.labels[at],
            units=units.astype(np.int64),
            unit_ids=tuple(self.unit_ids[u] for u in kept),
            gold=tuple(self.gold[i] for i in at),
            fields=tuple(self.fields[i] for i in at),
            columns={k: v[at] for k, v in self.columns.items()},
            groups={k: v[at] for k, v in self.groups.items()},
            transformations=(*self.transformations, *also),
        )

    def only_held_classes(self) -> "Records":
        """Return the records without the classes that no record has, unless the classes were declared."""
        if self.classes == UNLABELLED or self.fixed_classes:
            return self
        held, labels = np.unique(self.labels, return_inverse=True)
        return self.with_classes(labels.astype(np.int64), tuple(self.classes[c] for c in held))

    def with_classes(self, labels: Ints, classes: tuple[str, ...], *also: Transformation) -> "Records":
        """Return the records under other classes, with the steps that change them; sealed if these are."""
        changed = dataclasses.replace(
            self, labels=labels, classes=classes, transformations=(*self.transformations, *also)
        )
        return changed.seal() if self.intact else changed

    @cached_property
    def digest(self) -> str:
        """SHA-256 over texts, labels, units, columns and groups, hex. Never publish it: it confirms guesses."""
        digest = hashlib.sha256()
        for text, label, unit in zip(self.texts, self.labels, self.units, strict=True):
            digest.update(f"{len(text)}|{text}|{label}|{self.unit_ids[unit]}\n".encode("utf-8", "surrogatepass"))
        for name in sorted(self.columns):
            digest.update(f"{name}|{'|'.join(map(str, self.columns[name].tolist()))}\n".encode())
        for name in sorted(self.groups):
            digest.update(f"group {name}|{'|'.join(map(str, self.groups[name].tolist()))}\n".encode())
        return digest.hexdigest()
