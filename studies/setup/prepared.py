"""A study made ready: data filtered and parted under its key, the base model loaded, masked texts run through its trunk.

Over 300 lines, since all of it is what trials share, and each piece needs the ones before it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError
from moo.core.measurement import number_in, number_out
from moo.core.trial_record import TrialParams
from moo.data.catalogue import load_records
from moo.data.legal.dossier import declared_facts, load_dossier
from moo.data.legal.gates import Terms, data_facts
from moo.data.synthetic.order_notes import synthetic_notes
from moo.masking import Found, apply, find_spans, probe
from moo.masking.recognisers import names_ner
from moo.models.bank.bank import Depth, Frozen, Head, check_depth
from moo.models.bank.feature_scaling import constants
from moo.models.pretrained.architectures import Cut, Targets, family_of, is_causal
from moo.models.pretrained.loading import BaseModel, load_base, refuse_longer
from moo.models.training.memory import release_free_memory
from moo.models.trunk.cache import Feature, TrunkCache
from moo.models.trunk.constants import Constants
from moo.models.trunk.encode import last_cut, token_ids
from moo.models.trunk.packed import Packed
from moo.objectives.compliance.facts import masking_facts
from moo.privacy.calibration import check_delta
from moo.privacy.keys import StudyKey
from moo.studies.setup import partition
from moo.studies.setup.rare_classes import study_steps
from moo.studies.setup.records_per_user import records_per_user
from moo.studies.spec.study import PLACES, StudySpec

Stage = Callable[[str, int, int], None]  # what is being done, how many, of how many
PROBE_SEED = 0
LANGUAGES = ("zh", "en")


def no_stage(_what: str, _done: int, _total: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class MaskedPart:
    """One part of the data at one masking level.

    Attributes:
        packed: Activations.
        spans: For each record, what was masked.
        wordless: Shape (n,). True for records that had a word to learn from, and that masking left without one.
        notices: What a person should know of the trunk's cache.
    """

    packed: Packed
    spans: tuple[tuple[Found, ...], ...]
    wordless: NDArray[np.bool_]
    notices: tuple[str, ...] = ()


class Prepared:
    """Everything that trials share. Nothing here depends on a trial's parameters.

    Args:
        spec: The study.
        key: The study's secret.
        folder: The study's folder, mode 0700; activations are cached below it.
        stage: Told what is being done.
        release_share: Share of the units that are set aside before anything else and that no trial reads; 0 sets none aside.
        split: Name of another split into pool, test and unseen; empty for the study's own.
        name: Of the study in storage and ledger; the specification's by default.
    """

    def __init__(
        self,
        spec: StudySpec,
        key: StudyKey,
        folder: Path,
        stage: Stage = no_stage,
        *,
        release_share: float = 0.0,
        split: str = "",
        name: str = "",
    ) -> None:
        if spec.ner:
            names_ner.version()  # refuses before anything is fetched where it is not installed
        self.spec = spec = spec.on(date.today())
        self.key, self.folder, self.stage = key, folder, stage
        self.name, self._parted = name or spec.name, [release_share, split]
        loaded = load_records(
            spec.data,
            n_records=spec.n_records,
            text=spec.text,
            label=spec.label,
            user=spec.user,
            as_of=self.as_of,
            withdrawals=spec.withdrawals,
            allow_unmatched=spec.allow_unmatched,
            reading=spec.reading,
            language=spec.language,
            classes=spec.classes,
            groups=[name for name in (spec.attribute, *spec.attribute_auxiliary) if name],
            progress=lambda done, total: stage("fetching the data", done, total),
        )
        self.loaded = loaded
        self.dossier = load_dossier(spec.dossier) if spec.dossier else None
        self.terms = Terms.of(self.dossier, purpose=spec.purpose, as_of=self.as_of, declared=spec.declare)
        self.flags: frozenset[str] = frozenset(spec.applies)  # which rules apply; the policy adds its own
        self.stays_inside = True  # whether numbers that read private units may be logged
        self.covered: frozenset[str] = frozenset()  # dataset-scoped steps that the ledger charges
        kept, self.preparation = partition.filtered(loaded, spec, self.terms)
        self.digest = key.derive("data", loaded.digest).hex()
        self.records, self.release = partition.split_off_release_users(kept, key.derive("release"), release_share)
        steps = (*self.records.declared(), *study_steps(spec))
        self.records = dataclasses.replace(self.records, transformations=steps)
        self.n_units = round((1 - release_share) * loaded.n_units)
        self.release_units = loaded.n_units - self.n_units
        self.expected_units = max(1, round(0.5 * spec.pool * self.n_units))
        self.all_units = loaded.n_units
        check_delta(spec.training.target_delta, self.all_units)
        self.records_per_user = records_per_user(spec, loaded)
        self.data_facts = data_facts(self.records, self.terms)
        self.parts = partition.split(self.records, spec, key.derive("split", split) if split else key.derive("split"))
        if self.release is not None:
            self.parts["release"] = self.release
        self._masked: dict[tuple[str, int, Cut, Feature], MaskedPart] = {}
        self._constants: dict[Cut, Constants] = {}

    @property
    def as_of(self) -> date:
        return date.fromisoformat(self.spec.as_of)

    @cached_property
    def declared_facts(self) -> Mapping[str, float | None]:
        """What the dossier declares, judged at the study's day and against its space."""
        space = dataclasses.asdict(self.spec.space)
        return declared_facts(self.dossier, as_of=self.as_of, space=space)

    @cached_property
    def base(self) -> BaseModel:
        self.stage("loading the base model", 0, 0)
        found = load_base(
            self.spec.model,
            accelerator=self.spec.machine.accelerator,
            progress=lambda done, total: self.stage("fetching the base model", done, total),
        )
        refuse_longer(found.model, self.spec.training.max_length, name=self.spec.model, virtual=self._virtual)
        precision = self.spec.machine.precision
        return found if precision == "auto" else dataclasses.replace(found, low_precision=precision == "bf16-mixed")

    @property
    def _virtual(self) -> int:
        """Tokens of the largest prefix that the search could draw."""
        return 2 ** self.spec.space.lora_rank_log2[1] if self.spec.training.adaptation == "prefix" else 0

    @cached_property
    def engine(self) -> Literal["bank", "opacus"]:
        """What trains the shadows: the study's word, or the bank where it knows the model and the adaptation."""
        t = self.spec.training
        if t.engine != "auto":
            return cast(Literal["bank", "opacus"], t.engine)
        known = family_of(self.base.model) is not None
        return "bank" if known and t.adaptation == "lora" else "opacus"

    def cut(self, params: TrialParams | None) -> Cut:
        """The live blocks of a configuration; of the last layer where none is given."""
        depth = Depth() if params is None else trial_depth(params, self.spec)
        if self.engine == "opacus":  # reads tokens; of the trunk it wants the frozen features alone
            if depth.layers_dropped or depth.n_queries:
                raise InputError(
                    "layers_dropped = 0 and n_queries = 0 must hold on the engine 'opacus', but got "
                    "{layers_dropped} and {n_queries}; set space.layers_dropped = [0, 0] and space.n_queries "
                    "= [0, 0].",
                    layers_dropped=depth.layers_dropped,
                    n_queries=depth.n_queries,
                )
            n = int(self.base.model.config.num_hidden_layers)
            if self.spec.training.adaptation == "lora" and depth.adapted_layers > n:
                raise InputError(
                    "adapted_layers <= {n} (the model's layers) must hold, but got {adapted_layers}; lower "
                    "space.adapted_layers.",
                    n=n,
                    adapted_layers=depth.adapted_layers,
                )
            return last_cut(self.base)
        return check_depth(self.base.model, depth)

    def constants(self, cut: Cut) -> Constants:
        """Public shift and scale at a cut; without the shift where the head has no bias to take it."""
        if cut not in self._constants:
            found = constants(self.base, max_length=self.spec.training.max_length, cut=cut)
            bare = self.spec.training.head == "stock" and is_causal(self.base.model)
            self._constants[cut] = found.unshifted() if bare else found
        return self._constants[cut]

    def trial_key(
        self, params: TrialParams, *more: str | int, number: int, replicate: int = 0, key: StudyKey | None = None
    ) -> StudyKey:
        """Where all that is random in one training comes from: noise, batches, initial LoRA, halves, noised answers.

        Runs that differ in anything share none of it, also where they have number, key and data in common: two sums with the same
        noise would tell their exact difference, while the ledger composes the runs as independent (ADR 24).

        Args:
            params, number, replicate: The trial.
            more: What else decides what is drawn.
            key: A secret to derive from in place of the study's.
        """
        run = {
            "study": self.name,
            "moo": version("moo-privacy"),
            "parted": self._parted,
            "records": self._kept,
            "weights": self.base.digest,
            "tokenizer": self._tokenizer,
            "spec": self.placeless,
            **({"ner": names_ner.version()} if self.spec.ner else {}),
            "params": params.to_json(),
            "engine": self.engine,
            "precision": "bf16" if self.base.low_precision else "fp32",
        }
        of = key or self.key
        return of.child(self.digest, "trial", json.dumps(run, sort_keys=True), number, replicate, *more)

    def parts_key(self, *more: str) -> StudyKey:
        """Return the key of what is drawn once for the parts: no other data, split or study shares any of it."""
        parted = {
            "study": self.name,
            "moo": version("moo-privacy"),
            "parted": self._parted,
            "records": self._kept,
            "spec": self.placeless,
        }
        return self.key.child(self.digest, "parts", json.dumps(parted, sort_keys=True), *more)

    @property
    def placeless(self) -> dict[str, Any]:
        """The specification as JSON, without where its files stand."""
        return {k: v for k, v in self.spec.to_json().items() if k not in PLACES}

    @cached_property
    def _tokenizer(self) -> str:
        tokenizer = self.base.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        told = repr(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def _kept(self) -> str:
        """Digest of the records that filters and the release split have left, with what masking is told of them."""
        fields = hashlib.sha256(repr(self.records.fields).encode("utf-8", "surrogatepass"))
        return self.records.digest + fields.hexdigest()

    def frozen(self, params: TrialParams) -> Frozen:
        """What a bank needs of the base model."""
        cut = self.cut(params)
        return Frozen(base=self.base, cut=cut, constants=self.constants(cut))

    def cache(self, cut: Cut) -> TrunkCache:
        """The trunk's cache, as it stands on disk."""
        key = self.key.derive("trunk cache", self.digest)
        return TrunkCache(
            self.folder / "trunk",
            key,
            self.base,
            max_length=self.spec.training.max_length,
            cut=cut,
            limit_gib=self.spec.machine.cache_gib,
        )

    def masked(self, part: str, level: int, params: TrialParams | None = None) -> MaskedPart:
        """A part at a masking level, with activations for the configuration's depth; all parts of one level are kept, and no more."""
        wanted = (part, level, self.cut(params), self._feature(params))
        if wanted not in self._masked:
            self._masked = {at: kept for at, kept in self._masked.items() if at[1:] == wanted[1:]}
            release_free_memory()  # what the trial before has freed
            self._masked[wanted] = self._mask(*wanted)
        return self._masked[wanted]

    def let_go(self, *parts: str) -> None:
        """Hold these parts no longer: they are masked again, and read from the trunk's cache, when they are next asked for."""
        self._masked = {at: kept for at, kept in self._masked.items() if at[0] not in parts}

    def _feature(self, params: TrialParams | None) -> Feature:
        """The frozen feature that the head sees."""
        if self.spec.training.head != "stock" or params is None:
            return "mean"
        return "none" if params.adapted_layers else "pooled"

    def packed(self, texts: Sequence[str], params: TrialParams) -> Packed:
        """Activations of texts from elsewhere, as a configuration would see them."""
        cut = self.cut(params)
        return self._packed(self.cache(cut), list(texts), cut, self._feature(params), None)

    def _packed(
        self,
        cache: TrunkCache,
        texts: list[str],
        cut: Cut,
        feature: Feature,
        progress: Callable[[int], None] | None,
    ) -> Packed:
        packed = cache.packed(texts, self.constants(cut), feature=feature, progress=progress)
        if self.engine == "opacus":
            ids, _ = token_ids(self.base, texts, max_length=self.spec.training.max_length)
            packed = dataclasses.replace(packed, ids=ids)
        return packed

    def _mask(self, part: str, level: int, cut: Cut, feature: Feature) -> MaskedPart:
        records = self.parts[part]
        spans = [
            tuple(find_spans(t, level, fields=f, ner=self.spec.ner))
            for t, f in zip(records.texts, records.fields, strict=True)
        ]
        texts = [apply(t, s) for t, s in zip(records.texts, spans, strict=True)]
        done = 0

        def progress(n: int) -> None:
            nonlocal done
            done += n
            self.stage(f"trunk, masking level {level}, {part}", done, len(texts))

        cache = self.cache(cut)
        packed = self._packed(cache, texts, cut, feature, progress)
        wordless = np.array(
            [_has_words(t, ()) and not _has_words(t, s) for t, s in zip(records.texts, spans, strict=True)]
        )
        return MaskedPart(packed, tuple(spans), wordless, tuple(cache.notices))

    def masking_facts(self, level: int) -> Mapping[str, float | None]:
        """What the level leaves of synthetic identities, measured once a study and kept beside it."""
        path = self.folder / "masking-facts.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        if str(level) not in known:
            self.stage(f"measuring masking level {level}", 0, 0)
            each = [_measured(level, self.spec.probe_records, name, self.spec.ner) for name in self._languages]
            facts = _worst(each)
            known[str(level)] = {k: None if v is None else number_out(v) for k, v in facts.items()}
            write_whole(path, json.dumps(known, indent=1))
        return {k: None if v is None else number_in(v) for k, v in known[str(level)].items()}

    @property
    def _languages(self) -> tuple[str, ...]:
        """Languages that masking is measured in: the declared one, else all, so that no user's text decides it."""
        return (self.records.language,) if self.records.language else LANGUAGES


def _worst(of_each: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the largest value of each fact, which is the worst; None where no language knows it."""
    known = {name: [facts[name] for facts in of_each] for name in of_each[0]}
    return {name: max((v for v in values if v is not None), default=None) for name, values in known.items()}


@lru_cache(maxsize=64)
def _measured(level: int, n_records: int, language: str, ner: bool) -> Mapping[str, float | None]:
    """Measure a masking level on synthetic identities, the same for every study of a process."""
    notes = synthetic_notes(n_records, seed=PROBE_SEED, language=language)
    return masking_facts(probe(notes.texts, notes.gold, notes.users, level, ner=ner))


def trial_depth(params: TrialParams, spec: StudySpec) -> Depth:
    """A configuration's depth as the engine takes it."""
    return Depth(
        adapted_layers=params.adapted_layers,
        layers_dropped=params.layers_dropped,
        n_queries=params.n_queries,
        targets=cast(Targets, spec.training.lora_targets),
        head=cast(Head, spec.training.head),
    )


def _has_words(text: str, spans: tuple[Found, ...]) -> bool:
    """Whether a letter stands outside what was masked."""
    covered: NDArray[np.bool_] = np.zeros(len(text), dtype=bool)
    for span in spans:
        covered[span.start : span.end] = True
    return any(c.isalpha() and not covered[i] for i, c in enumerate(text))
