"""moo memorise on a tiny writer.

Secrets kept without DP and not under it, all charged, reports kept, what cannot be asked refused.
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import beta
from transformers import AutoModelForCausalLM

from moo.cli.main import main
from moo.core.errors import InputError, PolicyError, TrialError
from moo.core.trial_record import TrialParams
from moo.data.catalogue import load_records
from moo.objectives.memorisation.exposure import UNTRAINED_BITS
from moo.privacy.caps import NO_CAP
from moo.privacy.composition import group_privacy
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import read_entries
from moo.studies.accounting.account import ledger_path
from moo.studies.accounting.ledger_heads import ANCHORS
from moo.studies.results.memorisation_report import MemorisationReport
from moo.studies.search.estimate import plan_study
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import StudySpec, load_spec
from moo.studies.workflows import memorise as module
from moo.studies.workflows.audit import audit_configuration
from moo.studies.workflows.memorise import memorise
from tests.conftest import save_tiny, small_config
from tests.fixtures.letters import letters_spec

BARE = TrialParams(target_epsilon=math.inf, masking_level=0, lora_rank=16, learning_rate=1e-2, adapted_layers=2)
PRIVATE = dataclasses.replace(BARE, target_epsilon=1.0)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StudySpec:
    folder = save_tiny(tmp_path_factory.mktemp("writer"), kind="llama", layers=2)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(small_config("llama", hidden=32, layers=2, heads=4))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    plain = letters_spec(tmp_path_factory.mktemp("texts"), folder, n=80)
    training = dataclasses.replace(
        plain.training, steps=80, sample_rate=0.5, lora_targets="all_linear", lora_alpha=32.0
    )
    return dataclasses.replace(plain, task="generation", training=training)


@pytest.fixture(scope="module")
def asked(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MemorisationReport]:
    """One folder; one key, so that the numbers are the same every time."""
    home = tmp_path_factory.mktemp("kept")

    def of(params: TrialParams, *, steps: int = spec.training.steps, **options: Any) -> MemorisationReport:
        chosen = {"canaries": 12, "digits": 3, "key": StudyKey(bytes(32)), **options}
        study = dataclasses.replace(spec, training=dataclasses.replace(spec.training, steps=steps))
        return memorise(study, params, folder=home, **chosen)

    return of


def test_secrets_are_kept_without_dp_and_less_under_it(
    asked: Callable[..., MemorisationReport], spec: StudySpec
) -> None:
    bare = asked(BARE, repeats=4)
    assert bare.candidates == 1000
    assert bare.exposure.value > 4
    assert bare.learnt.low > 1
    assert bare.emission.emitted > 0
    assert abs(bare.control.value - UNTRAINED_BITS) < 5 * bare.control.stderr
    assert bare.claim.startswith("withdrawn because it was trained without noise")
    assert 0 < bare.loss.value != bare.base_loss.value
    private = asked(PRIVATE, repeats=4)
    assert private.claim == "holds"
    assert 0 < private.claimed_epsilon <= 1.0
    assert private.exposure.value < bare.exposure.value - 2
    assert private.steps == spec.training.steps
    assert private.base_loss == bare.base_loss  # the same texts held out, the same start
    for report in (bare, private):
        k, n = report.emission.emitted, len(report.canaries)
        assert k == sum(c.emitted for c in report.canaries)
        assert report.emission.upper == pytest.approx(1.0 if k == n else beta.ppf(0.95, k + 1, n - k))
        assert report.emission_score == 1.0  # twelve planted bound no rate below .22
        for canary in report.canaries:
            assert canary.exposure == pytest.approx(math.log2(1000 / canary.rank))
            assert not canary.emitted or canary.rank <= 10  # said greedily: likeliest digit by digit
        assert report.most_exposed.exposure == max(c.exposure for c in report.canaries)


def test_a_secret_in_several_texts_is_told_with_its_groups_epsilon(asked: Callable[..., MemorisationReport]) -> None:
    report = asked(PRIVATE, steps=2, canaries=4, repeats=3, digits=1)
    assert (report.secret_epsilon, report.secret_delta) == group_privacy(report.claimed_epsilon, report.delta, 3)
    assert report.candidates == 10
    assert len({c.prompt for c in report.canaries}) == 4


def test_it_is_reserved_before_it_trains_settled_after_and_kept(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dataclasses.replace(spec, training=dataclasses.replace(spec.training, steps=2))
    report = memorise(quick, PRIVATE, folder=tmp_path, canaries=3, digits=1)
    entries = read_entries(ledger_path(spec.data))
    assert [e.kind for e in entries[-2:]] == ["reserve", "commit"]
    run = entries[-2].body["run"]
    assert (run["steps"], run["shadows_per_unit"], run["n_units"]) == (2, 1, round(spec.pool * 40) + 3)
    assert report.ledger == f"{entries[-1].seq}:{entries[-1].hash}"
    (kept,) = (tmp_path / "memorisation").glob("*.json")
    assert json.loads(kept.read_text(encoding="utf-8")) == report.to_json()
    assert report.capped == NO_CAP
    bare = memorise(quick, BARE, folder=tmp_path, canaries=3, digits=1).to_json()
    assert bare["claimed_epsilon"] == bare["secret_epsilon"] == "inf"

    def broken(*_: Any) -> None:
        raise TrialError("it broke", cause="broken")

    older = ledger_path(spec.data).read_bytes()
    monkeypatch.setattr(module, "train_generator", broken)
    with pytest.raises(TrialError):
        memorise(quick, PRIVATE, folder=tmp_path, canaries=3, digits=1)
    last = read_entries(ledger_path(spec.data))[-1]
    assert (last.kind, last.body["steps"]) == ("abort", 2)
    path = ledger_path(spec.data)
    (anchor,) = json.loads((tmp_path / ANCHORS).read_text(encoding="utf-8")).values()
    assert anchor == f"{last.seq}:{last.hash}"
    newer = path.read_bytes()
    path.write_bytes(older)
    with pytest.raises(PolicyError, match=r"must hold what letters memorisation \w+ has spent so far"):
        memorise(quick, PRIVATE, folder=tmp_path, canaries=3, digits=1)
    path.write_bytes(newer)


def test_what_cannot_be_asked_is_refused_before_anything_is_spent(spec: StudySpec, tmp_path: Path) -> None:
    for options, message in (
        ({"canaries": 1}, "canaries"),
        ({"repeats": 0}, "repeats"),
        ({"digits": 9}, "digits"),
        ({"confidence": math.nan}, "confidence"),
    ):
        with pytest.raises(InputError, match=message):
            memorise(spec, PRIVATE, folder=tmp_path / "never", **options)
    assert not (tmp_path / "never").exists()
    other = dataclasses.replace(spec, task="classification")
    with pytest.raises(InputError, match="task must be 'generation'"):
        memorise(other, PRIVATE, folder=tmp_path / "never")
    with pytest.raises(InputError, match="moo memorise"):
        run_study(spec, n_trials=2, folder=tmp_path / "run")
    with pytest.raises(InputError, match="moo memorise"):
        plan_study(spec, n_trials=2)
    with pytest.raises(InputError, match="moo memorise"):
        audit_configuration(spec, PRIVATE, folder=tmp_path / "audit")
    with pytest.raises(InputError, match="task"):
        StudySpec(task="dream")
    with pytest.raises(InputError, match="label must be a column"):
        StudySpec(label="")


def test_the_command_tells_both_trainings_and_json(
    spec: StudySpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "writer.toml"
    frame = pd.read_csv(spec.data).drop(columns="label")  # a writer needs none
    frame.to_csv(tmp_path / "texts.csv", index=False)
    lines = [f'{k} = "{getattr(spec, k)}"' for k in ("name", "task", "user", "model")]
    lines += [f'data = "{tmp_path / "texts.csv"}"', 'label = ""']
    training = ["steps = 2", "sample_rate = 0.5", "max_length = 24", "target_delta = 1e-4"]
    toml.write_text("\n".join([*lines, "n_records = 0", "[space]", "adapted_layers = [1, 2]", "[training]", *training]))
    command = ["memorise", str(toml), "--out", str(tmp_path / "out"), "--canaries", "3", "--digits", "1"]
    assert main([*command, "--repeats", "2", "--each"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "no DP" in told
    assert told.count("The service code of customer") == 2 * 3
    assert "said word for word" in told
    assert "group privacy" in told
    assert main([*command, "--epsilon", "4", "--format", "json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["claimed_epsilon"] <= 4
    assert report["emission"]["canaries"] == len(report["canaries"]) == 3


def test_the_shipped_replies_are_synthetic_and_declared_so() -> None:
    shipped = load_spec("service-reply")
    assert (shipped.task, shipped.model) == ("generation", "smollm2-135m")
    records = load_records(shipped.data, n_records=50)
    assert len(records) == records.n_units == 50
    assert "synthetic" in records.declaration
    assert records.digest == load_records(shipped.data, n_records=50).digest
    assert records.texts[:50] != load_records(shipped.data, n_records=50, seed=1).texts
    named = sum(fields["name"] in text for fields, text in zip(records.fields, records.texts, strict=True))
    assert named == 50


Streams = Callable[..., set[bytes]]


@pytest.fixture
def streams(spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Return what the three streams of a training begin with.

    It ends there. Each table has a folder, and all share one key.
    """
    drawn: list[set[bytes]] = []
    writer = module.load_generator(spec.model, accelerator="cpu")

    def noted(*arguments: Any) -> None:
        drawn.append({arguments[-1](purpose, 0).bytes(16) for purpose in ("init", "sampling", "noise")})
        raise TrialError("drawn", cause="drawn")

    monkeypatch.setattr(module, "train_generator", noted)
    monkeypatch.setattr(module, "load_generator", lambda *_, **__: writer)

    def of(
        params: TrialParams = PRIVATE, *, study: StudySpec = spec, key: bytes = bytes(32), **more: Any
    ) -> set[bytes]:
        options = {"canaries": 3, "digits": 1, "key": StudyKey(key), **more}
        folder, first = tmp_path / f"of-{Path(study.data).stem}", tmp_path / f"of-{Path(spec.data).stem}" / "study.key"
        if first.is_file() and not folder.exists():
            folder.mkdir(mode=0o700)
            shutil.copy(first, folder)
        with pytest.raises(TrialError, match="drawn"):
            memorise(study, params, folder=folder, **options)
        assert len(drawn[-1]) == 3
        return drawn[-1]

    return of


def retold(spec: StudySpec, path: Path, **columns: Any) -> StudySpec:
    pd.read_csv(spec.data).assign(**columns).to_csv(path, index=False)
    return dataclasses.replace(spec, data=str(path))


def test_trainings_that_differ_in_parameters_or_specification_share_no_stream_under_one_key(
    spec: StudySpec, streams: Streams
) -> None:
    def trained(**changes: Any) -> StudySpec:
        training = dataclasses.replace(spec.training, **{"steps": 5, **changes})
        return dataclasses.replace(spec, training=training)

    plain = trained()  # of few steps, so that its noise is soon calibrated
    changes: list[dict[str, Any]] = [
        {"target_epsilon": 2.0},
        {"target_epsilon": math.inf},
        {"masking_level": 1},
        {"lora_rank": 8},
        {"learning_rate": 2e-2},
        {"adapted_layers": 1},
    ]
    studies = [
        dataclasses.replace(plain, name="another"),
        trained(max_grad_norm=0.31),
        trained(steps=6),
        trained(sample_rate=0.4),
        trained(lora_alpha=16.0),
        trained(lora_targets="query_value"),
        trained(max_length=20),
        trained(target_delta=1e-5),
        dataclasses.replace(plain, pool=spec.pool / 2),
    ]
    drawn = [streams(study=plain), *(streams(dataclasses.replace(PRIVATE, **c), study=plain) for c in changes)]
    drawn += [streams(study=study) for study in studies]
    assert len(set.union(*drawn)) == 3 * len(drawn)


def test_trainings_that_differ_in_what_they_read_share_no_stream_under_one_key_and_a_moved_table_shares_all(
    spec: StudySpec, streams: Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = pd.read_csv(spec.data).text
    drawn = [streams(), streams(study=retold(spec, tmp_path / "others.csv", text=texts.str.replace("a", "z")))]
    drawn += [streams(canaries=4), streams(repeats=2), streams(digits=2), streams(key=b"k" * 32)]
    with monkeypatch.context() as other_people:
        own = module._texts
        other_people.setattr(module, "_texts", lambda *a: dataclasses.replace(own(*a), units=np.roll(own(*a).units, 1)))
        drawn.append(streams())
    assert streams() == streams(study=retold(spec, tmp_path / "moved.csv")) == drawn[0]
    weights = module.load_generator(spec.model).model.lm_head.weight.data
    weights[0, 0] += 0.1
    drawn.append(streams())
    assert len(set.union(*drawn)) == 3 * len(drawn)


def test_the_same_training_under_the_same_key_tells_the_same(spec: StudySpec, tmp_path: Path) -> None:
    quick = dataclasses.replace(spec, training=dataclasses.replace(spec.training, steps=2))
    told = [
        memorise(quick, PRIVATE, folder=tmp_path, canaries=3, digits=1, key=StudyKey(b"k" * 32)).to_json()
        for _ in range(2)
    ]
    when = ("seconds", "ledger")
    first, again = ({k: v for k, v in report.items() if k not in when} for report in told)
    assert first == again
