"""StudySpec: data, model, space, limits and training of a study, as one frozen object or one TOML file."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

from moo.core import validate
from moo.core.errors import InputError
from moo.core.trial_record import SAMPLERS
from moo.data.legal.declared import declaration
from moo.studies.spec.runtime import RuntimeSettings
from moo.studies.spec.space import SpaceSpec
from moo.studies.spec.training import TrainingSpec
from moo.studies.spec.typed import build, set_typed
from moo.tables import Reading

# paths; a run depends on their content alone, not on the path
PLACES = ("data", "model", "dossier", "withdrawals")


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """Everything that decides a study's numbers, besides the seed, the policy and the secret key.

    Attributes:
        name: Name of the study.
        title: Title in one line.
        task: "classification", which `run_study` searches, or "generation", which `memorise` tests with secrets.
        data: Name of a data set, or path to CSV, Parquet or JSON Lines.
        text, label, user: Columns of a table; unused for named data sets. Without `user` the unit is the record;
            a task of generation needs no label.
        one_record_per_user: True to declare, for a table without a user column, that each row is another person's.
        max_records_per_user: Largest number of rows of one person, declared for a table without a user column;
            0 declares nothing, and rules about users are then not assessed.
        n_records: Number of records, taken in whole units; 0 takes all. A user's own table has no DP claim at
            any other number.
        model: Base model: a registered name, a folder or a hub id.
        pool, test: Public fractions of units that shadows are drawn from, and that accuracy is measured on; no
            shadow sees the rest, which serves as the null of the attack.
        space: Bounds of the search.
        training: Training of every trial.
        sampler: Proposer of settings: "nsga2", "nsga3", "tpe", "gp" or "random"; select_one always draws at random.
        max_risk: Limit on the membership advantage.
        max_penalty: Limit on the compliance penalty.
        attack: Membership attack, named before the study; or "chosen" on half of the units, reported on the other.
        attack_level: "record", or "user" to attack users by the mean score of their records.
        attribute: Personal attribute for which the leakage H(P|M) is measured too: a group of the data set or a
            column of the table, e.g. "gender"; each value is a class, the same for all records of a user. Risk is
            then the larger of the two.
        attribute_auxiliary: Attributes that the attacker is taken to know already; groups or columns too.
        purpose: Purpose of use; compared with the purposes consented to.
        as_of: Date at which consents and retention are judged, ISO 8601; empty for the day of the study's start.
        dossier: TOML file of the company's declarations about its data; empty leaves the organisation's gates
            unassessed.
        language: Language of a table's texts, "zh" or "en"; empty measures masking in both and takes the worse,
            as no step may guess it from the texts of all users.
        classes: Classes of a table, in order, which makes them public; empty reads them from all users' labels.
        min_class_users: Number of users that a class needs: smaller ones are merged into "other", by a step that
            reads all users. 0 merges none, and refuses classes of fewer than two users for each shadow.
        encoding: Encoding of a table in CSV or JSON Lines, e.g. "gb18030"; empty for UTF-8.
        separator: Separator of a table in CSV: ",", ";" or "tab"; empty takes the header line's.
        na_values: Texts that count as an empty cell of a table, e.g. ["NA"]; by default only an empty cell does.
        withdrawals: List of a table's users who have withdrawn.
        allow_unmatched: True if listed users may lack a row, e.g. since their rows are deleted.
        applies: Flags of the study, e.g. "profiling", which switch on rules with `applies_if`.
        consent_filter: True to drop records that fail a legal gate before anything else.
        sensitive_rows: "drop" sensitive records without separate consent, or "keep" them, which makes masking
            below level 4 a violation.
        gates: True to judge gates; False leaves the graded rules and their penalty, and every result says so.
        declare: Facts of the whole table that a person declares and signs; see `moo.data.legal.declared`.
        packs: Rule packs of the penalty.
        ner: True to mask by the optional recogniser of Chinese names too (moo-privacy[ner]).
        probe_records: Number of synthetic-identity records that masking is measured on.
        machine: Settings of the machine; no part of the study's identity.
    """

    name: str = "reviews"
    title: str = ""
    task: str = "classification"
    data: str = "reviews"
    text: str = "text"
    label: str = "label"
    user: str = ""
    one_record_per_user: bool = False
    max_records_per_user: int = 0
    n_records: int = 0
    model: str = "e5-small"
    pool: float = 0.64
    test: float = 0.24
    space: SpaceSpec = field(default_factory=SpaceSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    sampler: str = SAMPLERS[0]
    max_risk: float = 0.10
    max_penalty: float = 0.35
    attack: str = "pair_reference"
    attack_level: str = "record"
    attribute: str = ""
    attribute_auxiliary: tuple[str, ...] = ()
    purpose: str = "model_training"
    as_of: str = ""
    dossier: str = ""
    language: str = ""
    classes: tuple[str, ...] = ()
    min_class_users: int = 0
    encoding: str = ""
    separator: str = ""
    na_values: tuple[str, ...] = ()
    withdrawals: str = ""
    allow_unmatched: bool = False
    applies: tuple[str, ...] = ()
    consent_filter: bool = True
    sensitive_rows: str = "drop"
    gates: bool = True
    declare: Mapping[str, Any] = field(default_factory=dict)
    packs: tuple[str, ...] = ("pipl", "ecommerce", "gdpr", "house")
    ner: bool = False
    probe_records: int = 30_000
    machine: RuntimeSettings = field(default_factory=RuntimeSettings)

    def __post_init__(self) -> None:
        set_typed(self)
        object.__setattr__(self, "declare", declaration(self.declare))
        for name in PLACES:
            if getattr(self, name).startswith("~"):
                object.__setattr__(self, name, str(Path(getattr(self, name)).expanduser()))
        check_name(self.name)
        _ = self.reading
        validate.one_of(("classification", "generation"), task=self.task)
        if not self.label and self.task == "classification":
            raise validate.argument_error("{name} must be a column for classification", "label", self.label, "name it")
        validate.in_range(0, 100_000_000, n_records=self.n_records)
        validate.in_range(0, 1_000_000, max_records_per_user=self.max_records_per_user)
        if self.one_record_per_user and self.max_records_per_user > 1:
            raise validate.argument_error(
                "{name} must be 0 or 1 with one_record_per_user = true",
                "max_records_per_user",
                self.max_records_per_user,
                "declare one of the two",
            )
        validate.one_of(("", "zh", "en"), language=self.language)
        validate.in_range(0, 1_000_000, min_class_users=self.min_class_users)
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise validate.argument_error("{name} must be two or more, each once", "classes", list(self.classes))
        validate.in_range(0.05, 0.9, pool=self.pool)
        validate.in_range(0.05, 0.9, test=self.test)
        if self.pool + self.test > 0.98:
            raise validate.argument_error(
                "{name} must be <= 0.98", "pool + test", self.pool + self.test, "leave units for the null"
            )
        validate.in_range(-1, 1, max_risk=self.max_risk)
        validate.in_range(0, 1, max_penalty=self.max_penalty)
        validate.one_of(SAMPLERS, sampler=self.sampler)
        validate.one_of(("record", "user"), attack_level=self.attack_level)
        validate.one_of(("drop", "keep"), sensitive_rows=self.sensitive_rows)
        validate.in_range(1000, 10_000_000, probe_records=self.probe_records)
        try:
            date.fromisoformat(self.as_of or "2026-11-01")
        except ValueError:
            raise validate.argument_error(
                "{name} must be an ISO date", "as_of", self.as_of, "write it as 2026-11-01"
            ) from None

    @property
    def reading(self) -> Reading:
        """Encoding, separator and empty cells of the table's file."""
        return Reading(encoding=self.encoding, separator=self.separator, na_values=self.na_values)

    def to_json(self) -> dict[str, Any]:
        """Return the study's identity as JSON: a change is recognised by it, and the machine stays out."""
        out: dict[str, Any] = _plain(dataclasses.asdict(dataclasses.replace(self, machine=RuntimeSettings())))
        del out["machine"]
        return out

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, source: str = "") -> "StudySpec":
        """Build a study from parsed TOML or JSON.

        Raises:
            InputError: If a key is unknown, or a value is unfit; the source is named.
        """
        try:
            made: StudySpec = build(cls, values)
        except InputError as error:
            if not source:
                raise
            raise InputError("{source}: {error}", source=source, error=error.message) from error
        return made

    @classmethod
    def from_toml(cls, path: Path) -> "StudySpec":
        """Read a TOML file; relative paths start at its folder, or at the current one if nothing is there.

        Raises:
            InputError: If it cannot be read, or does not hold a study.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise InputError(
                "The study file must be readable, got {path} ({strerror}).", path=path, strerror=error.strerror
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError("The study file must be TOML, got {path}: {error}.", path=path, error=error) from error
        found = _placed(cls.from_mapping({"name": path.stem, **values}, source=str(path)), path.parent)
        if "data" not in values:
            raise InputError(
                "data must be named, a table's path or a data set, but {path} names none; see moo data list.", path=path
            )
        return found

    def on(self, day: date) -> "StudySpec":
        """Return the study judged at its own `as_of`, or at this day where it names none."""
        return self if self.as_of else dataclasses.replace(self, as_of=day.isoformat())

    def quick(self) -> "StudySpec":
        """Return a smaller study that shows the whole path in a few minutes.

        Its numbers are noisy, and a user's own table loses its DP claim to the cut.
        """
        # twenty users of every class take more
        most = 2400 if self.attribute else 900
        return dataclasses.replace(self, n_records=min(self.n_records or most, most))


def _placed(spec: StudySpec, folder: Path) -> StudySpec:
    """Return the study with paths made relative to its folder if they exist there."""
    candidates = {name: folder / getattr(spec, name) for name in PLACES if getattr(spec, name)}
    existing: dict[str, Any] = {name: str(path) for name, path in candidates.items() if path.exists()}
    packs = tuple(str(folder / pack) if (folder / pack).is_file() else pack for pack in spec.packs)
    return dataclasses.replace(spec, packs=packs, **existing)


def check_name(name: str) -> str:
    """Return a study's name, which names its folder too.

    Raises:
        InputError: If it is empty, or a path.
    """
    if not isinstance(name, str) or name != name.strip() or name in ("", ".", "..") or set(name) & set("/\\\0\n"):
        raise validate.argument_error(
            "{name} must be a word without slashes, or spaces around it", "name", name, "it names the study's folder"
        )
    return name


def presets() -> dict[str, str]:
    """Return the shipped studies: name -> title."""
    return {name: load_spec(name).title for name in _shipped()}


def _shipped() -> list[str]:
    folder = resources.files("moo.studies.spec.presets")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_spec(spec: "str | Path | StudySpec") -> StudySpec:
    """Return a StudySpec unchanged, a shipped study by name, or the study of a TOML file.

    Raises:
        InputError: If there is no such study.
    """
    if isinstance(spec, StudySpec):
        return spec
    shipped = resources.files("moo.studies.spec.presets") / f"{spec}.toml"
    if isinstance(spec, str) and "/" not in spec and shipped.is_file():
        return StudySpec.from_mapping(tomllib.loads(shipped.read_text(encoding="utf-8")), source=f"{spec}.toml")
    if not isinstance(spec, str | Path):
        raise InputError("study must be a name, a path or a StudySpec, got {spec!r}.", spec=spec)
    path = Path(spec).expanduser()
    if path.suffix == ".toml":
        return StudySpec.from_toml(path)
    known = _shipped()
    raise InputError(
        "study must be one of {known}, or a path to a .toml file, got {spec!r}.{nearest}",
        known=", ".join(known),
        spec=str(spec),
        nearest=validate.nearest(spec, known),
    )


def _plain(value: Any) -> Any:
    """Return tuples as lists, so that a value is equal after a round trip through JSON."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
