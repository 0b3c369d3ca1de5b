"""StudySpec: data, model, space, limits and training recipe of a study, as one frozen object or one TOML file."""

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
from moo.studies.spec.runtime import Machine
from moo.studies.spec.typed import build, set_typed
from moo.tables import Reading

PLACES = ("data", "model", "dossier", "withdrawals")  # paths; where they lead does not decide a run, what is there does


@dataclass(frozen=True, kw_only=True)
class SpaceSpec:
    """Bounds of what the search varies; each a pair (low, high), ends included.

    Attributes:
        target_epsilon: Searched on a log scale, > 0.
        masking_level: Integers in 0..5.
        lora_rank_log2: Integers; the rank is two to this power.
        learning_rate: Of the LoRA matrices, searched on a log scale, > 0.
        adapted_layers: Integers; 0 is the head alone, 1 one layer for the pooled token, more the top layers for all tokens.
        layers_dropped: Integers; layers above the adapted ones that are left out, without effect on the head alone.
        n_queries: Integers; learned query tokens that read the one adapted layer, without effect at other depths.
        batch_halvings: Integers in 0..12; times that the expected batch is halved and the steps doubled, at every depth.
    """

    target_epsilon: tuple[float, float] = (0.5, 32.0)
    masking_level: tuple[int, int] = (0, 5)
    lora_rank_log2: tuple[int, int] = (1, 5)
    learning_rate: tuple[float, float] = (1e-4, 1e-2)
    adapted_layers: tuple[int, int] = (0, 1)
    layers_dropped: tuple[int, int] = (0, 0)
    n_queries: tuple[int, int] = (0, 0)
    batch_halvings: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        set_typed(self, "space.")
        for f in dataclasses.fields(self):
            low, high = getattr(self, f.name)
            if not low <= high:
                raise validate.argument_error("{name} must have low <= high", f"space.{f.name}", (low, high))
        validate.positive(target_epsilon=self.target_epsilon[0], way_out="the non-private reference runs by itself")
        validate.finite(target_epsilon=self.target_epsilon[1], way_out="the non-private reference runs by itself")
        validate.positive(learning_rate=self.learning_rate[0])
        validate.in_range(0, 5, masking_level=self.masking_level[0])
        validate.in_range(0, 5, masking_level=self.masking_level[1])
        validate.in_range(0, 12, lora_rank_log2=self.lora_rank_log2[0])
        validate.in_range(0, 12, lora_rank_log2=self.lora_rank_log2[1])
        for bound in (0, 1):
            validate.in_range(0, 1024, adapted_layers=self.adapted_layers[bound])
            validate.in_range(0, 1024, layers_dropped=self.layers_dropped[bound])
            validate.in_range(0, 64, n_queries=self.n_queries[bound])
            validate.in_range(0, 12, batch_halvings=self.batch_halvings[bound])


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """The recipe that every trial shares; `batch_halvings` changes steps, sample_rate and head_learning_rate together.

    Attributes:
        n_shadows: K, even, >= 4: the shadows are K/2 complementary pairs.
        target_delta: Below 1 / (units of the whole data set).
        max_grad_norm: Norm to which a unit's gradient is clipped.
        sample_rate: Probability with which a unit enters a step's batch.
        steps: Optimizer steps.
        head_learning_rate: Step size of the head, by SGD on gradients over max_grad_norm.
        head_momentum: Of that SGD.
        lora_alpha: LoRA's scale is lora_alpha / rank.
        lora_targets: Linear layers that carry LoRA: "query_value", "query_key_value" or "all_linear".
        head: "with_mean", the frozen mean and the adapted token, or "stock", the adapted token alone, which PEFT can load.
        max_length: Tokens kept of a text.
        engine: "bank", side by side on a cached trunk; "opacus", PEFT and Opacus one after another; "auto", the bank where it knows the
            model and the adaptation, else the other.
        adaptation: "lora", or on the Opacus engine "prefix", "bottleneck" or "full".
    """

    n_shadows: int = 4
    target_delta: float = 1e-5
    max_grad_norm: float = 0.3
    sample_rate: float = 0.5
    steps: int = 25
    head_learning_rate: float = 1.5
    head_momentum: float = 0.9
    lora_alpha: float = 16.0
    lora_targets: str = "query_value"
    head: str = "with_mean"
    max_length: int = 96
    engine: str = "auto"
    adaptation: str = "lora"

    def __post_init__(self) -> None:
        set_typed(self, "training.")
        if self.n_shadows < 4 or self.n_shadows % 2:
            raise validate.argument_error(
                "{name} must be even and >= 4", "n_shadows", self.n_shadows, "shadows come in pairs"
            )
        if not 0 < self.target_delta < 1:
            raise validate.argument_error("{name} must be above 0 and below 1", "target_delta", self.target_delta)
        validate.finite(max_grad_norm=validate.positive(max_grad_norm=self.max_grad_norm))
        validate.positive(sample_rate=self.sample_rate)
        validate.in_range(0, 1, sample_rate=self.sample_rate)
        validate.in_range(1, 100_000, steps=self.steps)
        validate.finite(head_learning_rate=validate.positive(head_learning_rate=self.head_learning_rate))
        validate.finite(lora_alpha=validate.positive(lora_alpha=self.lora_alpha))
        validate.one_of(("query_value", "query_key_value", "all_linear"), lora_targets=self.lora_targets)
        validate.one_of(("with_mean", "stock"), head=self.head)
        validate.one_of(("auto", "bank", "opacus"), engine=self.engine)
        validate.one_of(("lora", "prefix", "bottleneck", "full"), adaptation=self.adaptation)
        if self.engine == "bank" and self.adaptation != "lora":
            raise validate.argument_error(
                "{name} must be 'auto' or 'opacus' with an adaptation other than lora", "engine", self.engine
            )
        validate.in_range(0, 0.999, head_momentum=self.head_momentum)
        validate.in_range(8, 8192, max_length=self.max_length)


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """Everything that decides a study's numbers, beside the seed, the policy and the secret key.

    Attributes:
        name: Name of the study.
        title: One line for people.
        task: "classification", which `run_study` searches, or "generation", which `memorise` trains and asks for planted secrets.
        data: A data set's name, or a path to CSV, Parquet or JSON Lines.
        text, label, user: Columns of a table; unused for named data sets. Without `user` the unit is the record; a task of
            generation needs no label.
        one_record_per_user: True declares, for a table without a user column, that each row is of another person.
        max_records_per_user: Most rows of one person, declared for a table without a user column; 0 declares nothing, and rules
            about users are then not assessed.
        n_records: Records taken, whole units at a time; 0 takes all. Of a table of one's own any number but 0 has no DP claim.
        model: Base model: a registered name, a folder or a hub id.
        pool, test: Public fractions of units that shadows are drawn from, and that accuracy is measured on; what is left
            is seen by no shadow and serves as the null of the attack.
        space: What the search varies.
        training: The recipe.
        sampler: What proposes settings: "nsga2", "nsga3", "tpe", "gp" or "random". The policy select_one draws at random always.
        max_risk: Limit on the membership advantage.
        max_penalty: Limit on the compliance penalty.
        attack: The membership attack, named before the study; or "chosen", on one half of the units, and reported on the other.
        attack_level: "record", or "user" to attack users by the mean score of their records.
        attribute: A personal attribute whose leakage H(P|M) is measured too, a group of the data set or a column of the table, e.g.
            "gender"; each value is a class, the same for all records of a user. Risk is then the larger of the two.
        attribute_auxiliary: Attributes that the attacker is taken to know already; groups or columns too.
        purpose: Why the data are used; compared with the purposes consented to.
        as_of: Date at which consents and retention are judged, ISO 8601; empty: the day on which the study starts.
        dossier: What the company declares about its data, a TOML file; empty leaves the organisation's gates unassessed.
        language: Of a table's texts, "zh" or "en"; empty measures masking in both and takes the worse, as no step may guess it from the
            texts of all users.
        classes: A table's classes, in order, which makes them public; empty reads them from the labels of all users.
        min_class_users: Users that a class needs: smaller ones are merged into "other", by a step that reads all users. 0 merges none,
            and refuses classes of fewer than two users for each shadow.
        encoding: Of a table in CSV or JSON Lines, e.g. "gb18030"; empty for UTF-8.
        separator: Of a table in CSV: ",", ";" or "tab"; empty takes the one that the header line holds.
        na_values: Texts that count as an empty cell of a table, e.g. ["NA"]; by default only an empty cell does.
        withdrawals: List of a table's users who have withdrawn.
        allow_unmatched: Whether listed users may lack a row, e.g. since their rows are deleted.
        applies: Flags of the study, e.g. "profiling", which switch on rules with `applies_if`.
        consent_filter: Whether records that fail a legal gate are dropped before anything else.
        sensitive_rows: "drop" sensitive records without separate consent, or "keep" them, which makes masking below
            level 4 a violation.
        gates: Whether gates are judged; false leaves the graded rules and their penalty, and is shown wherever a result is.
        declare: Facts of the whole table that a person declares and signs; see `moo.data.legal.declared`.
        packs: Rule packs that the penalty is read from.
        ner: Whether masking asks the optional recogniser of Chinese names too (moo-privacy[ner]).
        probe_records: Synthetic-identity records that masking is measured on.
        machine: How it runs; no part of what the study is.
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
    machine: Machine = field(default_factory=Machine)

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
        """How the table's file is read."""
        return Reading(encoding=self.encoding, separator=self.separator, na_values=self.na_values)

    def to_json(self) -> dict[str, Any]:
        """JSON of what the study is, and a changed configuration is recognised by; the machine stays out."""
        out: dict[str, Any] = _plain(dataclasses.asdict(dataclasses.replace(self, machine=Machine())))
        del out["machine"]
        return out

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, source: str = "") -> "StudySpec":
        """Build from parsed TOML or JSON.

        Raises:
            InputError: If a key is unknown, or a value is unfit; names the source.
        """
        try:
            made: StudySpec = build(cls, values)
        except InputError as error:
            raise InputError(f"{source}: {error}" if source else str(error)) from error
        return made

    @classmethod
    def from_toml(cls, path: Path) -> "StudySpec":
        """Read a TOML file; its relative paths start at its own folder, or where there is no such file, at the current one.

        Raises:
            InputError: If it cannot be read, or does not hold a study.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise InputError(
                "the study must be a readable file, but got {path} ({strerror}).", path=path, strerror=error.strerror
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError("the study must be TOML, but got {path}: {error}.", path=path, error=error) from error
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
        """A smaller study that shows the whole path in a few minutes; its numbers are noisy, and a table of one's own loses
        its DP claim to the cut."""
        most = 2400 if self.attribute else 900  # twenty users of every class take more
        return dataclasses.replace(self, n_records=min(self.n_records or most, most))


def _placed(spec: StudySpec, folder: Path) -> StudySpec:
    """Return the study with the paths that lead somewhere from its own folder."""
    there = {name: folder / getattr(spec, name) for name in PLACES if getattr(spec, name)}
    found: dict[str, Any] = {name: str(path) for name, path in there.items() if path.exists()}
    packs = tuple(str(folder / pack) if (folder / pack).is_file() else pack for pack in spec.packs)
    return dataclasses.replace(spec, packs=packs, **found)


def check_name(name: str) -> str:
    """A study's name, which is that of its folder too.

    Raises:
        InputError: If it is empty, or would lead elsewhere.
    """
    if not isinstance(name, str) or name != name.strip() or name in ("", ".", "..") or set(name) & set("/\\\0\n"):
        raise validate.argument_error(
            "{name} must be a word without slashes, or spaces around it", "name", name, "it names the study's folder"
        )
    return name


def presets() -> dict[str, str]:
    """Shipped studies: name -> title."""
    return {name: load_spec(name).title for name in _shipped()}


def _shipped() -> list[str]:
    folder = resources.files("moo.studies.spec.presets")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_spec(spec: "str | Path | StudySpec") -> StudySpec:
    """A StudySpec as it is, a shipped study by name, or a TOML file by path.

    Raises:
        InputError: If there is no such study.
    """
    if isinstance(spec, StudySpec):
        return spec
    shipped = resources.files("moo.studies.spec.presets") / f"{spec}.toml"
    if isinstance(spec, str) and "/" not in spec and shipped.is_file():
        return StudySpec.from_mapping(tomllib.loads(shipped.read_text(encoding="utf-8")), source=f"{spec}.toml")
    if not isinstance(spec, str | Path):
        raise InputError("study must be a name, a path or a StudySpec, but got {spec!r}.", spec=spec)
    path = Path(spec).expanduser()
    if path.suffix == ".toml":
        return StudySpec.from_toml(path)
    known = _shipped()
    raise InputError(
        "study must be one of {known}, or a path to a .toml file, but got study={spec!r}.{nearest}",
        known=", ".join(known),
        spec=str(spec),
        nearest=validate.nearest(spec, known),
    )


def _plain(value: Any) -> Any:
    """Tuples as lists, so that what comes back from JSON is equal."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
