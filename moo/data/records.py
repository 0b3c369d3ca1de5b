"""Records: texts with labels, units of privacy, and what the law asks about each of them."""

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
UNLABELLED = ("",)  # classes of records whose labels nobody asked for: texts to write like


UNDECLARED = Transformation(
    name="undeclared",
    scope="dataset",
    detail="the records were changed by a step that declares no scope",
    why="what nobody declares may have read every user",
)


def first_units(before: int, after: int, *, frozen: bool = False) -> Transformation:
    """What taking whole units until there are enough records is: who stays hangs on how much the others have, so that one more
    unit may move hundreds. It withdraws a DP claim, unless what came out is the fixed, public data set (`frozen`).

    Args:
        before, after: Records; both 0 where they were not counted.
        frozen: Whether the data are a fixed public snapshot.
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
        else "n_records asks for it; who stays depends on the others, so for a DP claim set n_records = 0, and cut the table "
        "beforehand by a rule that looks at one user at a time",
    )


@dataclass(frozen=True, kw_only=True)
class Records:
    """n records of U units of privacy.

    Attributes:
        name: Name of the data set.
        texts: Length n; what is trained on.
        labels: Shape (n,), codes 0..C-1.
        classes: Length C >= 2; or `UNLABELLED`.
        units: Shape (n,), codes 0..U-1: whose record it is.
        unit_ids: Length U; stable identities, for keyed hashing.
        unit_name: "customer", "user" or "record".
        language: "zh" or "en", as declared; empty where nobody has: no step may guess it from all texts.
        gold: Length n; true spans of personal information where they are known, else empty.
        fields: Length n; the record's own structured fields by entity type, for a masker that looks for them in the text.
        columns: Name -> shape (n,): consents, dates and the like, see `moo.data.legal.gates`.
        groups: Name -> shape (n,) codes, -1 where unknown: groups whose accuracy is compared.
        transformations: How the data were prepared, each with its scope.
        licence: Of the texts.
        declaration: What is synthetic about the data; empty if nothing is.
        fixed_classes: Whether the classes were declared: one that no record has stays.
        sealed: Digest of the records as the last declared step has left them; see `intact`.
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
        """Return True if nothing but declared steps has changed the records since they were loaded."""
        return self.sealed == self.digest

    def seal(self) -> "Records":
        """Return the same records, marked as what the declared steps have made of them."""
        return dataclasses.replace(self, sealed=self.digest)

    def declared(self) -> tuple[Transformation, ...]:
        """Return the steps of the preparation, with one of scope "dataset" for changes that no step declares."""
        return self.transformations if self.intact else (*self.transformations, UNDECLARED)

    def take(self, rows: NDArray[Any], *also: Transformation) -> "Records":
        """Return the records at the given positions (or under a mask), with units coded anew.

        Args:
            rows: Positions, or a mask of shape (n,).
            also: The step that this is. Without one the records are a part of these, or changed by a step that no one declares.
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
        """Return the records without the classes that none of them has, unless they were declared."""
        if self.classes == UNLABELLED or self.fixed_classes:
            return self
        held, labels = np.unique(self.labels, return_inverse=True)
        return self.with_classes(labels.astype(np.int64), tuple(self.classes[c] for c in held))

    def with_classes(self, labels: Ints, classes: tuple[str, ...], *also: Transformation) -> "Records":
        """Return the records under other classes, by the step that this is; sealed where they were."""
        changed = dataclasses.replace(
            self, labels=labels, classes=classes, transformations=(*self.transformations, *also)
        )
        return changed.seal() if self.intact else changed

    @cached_property
    def digest(self) -> str:
        """SHA-256 over texts, labels, units, columns and groups, hex. Not for publication: it answers "is this the data?"."""
        digest = hashlib.sha256()
        for text, label, unit in zip(self.texts, self.labels, self.units, strict=True):
            digest.update(f"{len(text)}|{text}|{label}|{self.unit_ids[unit]}\n".encode("utf-8", "surrogatepass"))
        for name in sorted(self.columns):
            digest.update(f"{name}|{'|'.join(map(str, self.columns[name].tolist()))}\n".encode())
        for name in sorted(self.groups):
            digest.update(f"group {name}|{'|'.join(map(str, self.groups[name].tolist()))}\n".encode())
        return digest.hexdigest()
