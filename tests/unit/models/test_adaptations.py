"""Adaptations on known and unknown models: clipped gradients, pooled tokens, refusals."""

import copy
import dataclasses
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from moo.core.errors import InputError, TrialError
from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.pretrained.architectures import Cut, cut_of, family_of, is_causal, sees_no_later_token
from moo.models.pretrained.loading import BaseModel
from moo.models.reference import adapters
from moo.models.reference import train as reference_train
from moo.models.reference.adapters import adapter_spec, build_classifier, layers_of_unknown
from moo.models.reference.lightning_module import ReferenceModule
from moo.models.reference.shadows import pad_token_ids
from moo.models.reference.train import with_grad_sample_hooks
from moo.models.train import TrainingData, TrainingSettings, train
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.encode import encode
from tests.fixtures.settings import CLIP, Sums, noisy, settings_of
from tests.fixtures.trainings import N, data_at, stream

FAMILIES = ("bert", "distilbert", "gpt2", "llama")
ADAPTATIONS = ("lora", "prefix", "bottleneck", "full")
PAIRS = [(kind, how) for kind in FAMILIES for how in ADAPTATIONS if (kind, how) != ("distilbert", "prefix")]
OWN: dict[str, dict[str, Any]] = {
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "mpnet": {},
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True},
}


def unknown(like: BaseModel, kind: str, **changes: Any) -> BaseModel:
    """Return a tiny model of random weights that moo has no table of, with another's tokenizer."""
    config = {
        "vocab_size": 40,
        "pad_token_id": 1,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        **OWN[kind],
        **changes,
    }
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **config)).eval().requires_grad_(False)
    model.config.use_cache = False
    for p in model.parameters():  # larger weights than the initialisation, so that texts differ
        p.data += 0.1 * torch.randn_like(p)
    return dataclasses.replace(like, model=model)


def opacus(adaptation: str, depth: int = 1, *callbacks: lightning.Callback, **changes: Any) -> TrainingSettings:
    targets = changes.pop("targets", "query_value")
    made = settings_of("opacus", depth, *callbacks, adaptation=adaptation, **changes)
    return dataclasses.replace(made, depth=Depth(adapted_layers=depth, targets=targets))


def at(base: BaseModel, *, per_unit: int = 1) -> tuple[TrainingData, Frozen]:
    """All texts in one shadow."""
    cut = Cut(0, 0) if family_of(base.model) is None else cut_of(base.model, adapted_layers=1)
    data, frozen = data_at(base, cut, per_unit=per_unit)
    return dataclasses.replace(data, members=np.ones((1, N), bool)), frozen


@pytest.fixture
def awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set heads and LoRA away from zero, so that first gradients reach every parameter."""
    plain = reference_train.initialise

    def started(model: Any, *rest: Any) -> None:
        plain(model, *rest)
        draw = torch.Generator().manual_seed(1)
        for name, p in model.named_parameters():
            if p.requires_grad and (".head." in name or ".lora_B." in name or ".up." in name):
                p.data.copy_(torch.randn(p.shape, generator=draw) * 0.1)

    monkeypatch.setattr(reference_train, "initialise", started)


def sums_of(data: TrainingData, settings: TrainingSettings, frozen: Frozen) -> torch.Tensor:
    sums = Sums()
    train(data, dataclasses.replace(settings, trainer={"callbacks": [sums]}), frozen, stream)
    return sums.steps[0]


@pytest.mark.usefixtures("awake")
@pytest.mark.parametrize(("kind", "adaptation"), PAIRS)
def test_removing_a_unit_moves_the_sum_by_at_most_the_clip_with_every_adaptation(
    family: Callable[[str], BaseModel], kind: str, adaptation: str
) -> None:
    data, frozen = at(family(kind))
    settings = opacus(adaptation, dp=noisy(1.0))
    whole = sums_of(data, settings, frozen)
    moved = []
    for unit in (0, 7):
        less = sums_of(dataclasses.replace(data, members=(data.units != unit)[None]), settings, frozen)
        moved.append(float((whole - less).norm()))
    assert max(moved) <= CLIP * (1 + 1e-3)
    assert min(moved) > 0.5 * CLIP


@pytest.mark.usefixtures("awake")
@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_removing_a_user_of_several_records_moves_the_sum_by_the_clip_once_and_by_record_for_each(
    family: Callable[[str], BaseModel], adaptation: str
) -> None:
    """Users of one to six records, some of them with a chunk of their own."""
    data, frozen = at(family("bert"))
    users = np.repeat(np.arange(11), [1, 6, 2, 3, 1, 5, 4, 2, 6, 1, 5])
    settings = opacus(adaptation, dp=noisy(1.0), optimizer=OptimizerSettings(learning_rate=1e-3, chunk=4))
    by_user, by_record = dataclasses.replace(data, units=users), dataclasses.replace(data, units=np.arange(N))
    whole, singly = sums_of(by_user, settings, frozen), sums_of(by_record, settings, frozen)
    for user in (1, 3):
        rest = (users != user)[None]
        moved = float((whole - sums_of(dataclasses.replace(by_user, members=rest), settings, frozen)).norm())
        assert 0.5 * CLIP < moved <= CLIP * (1 + 1e-3)
    one_less = (np.arange(N) != 2)[None]  # one record of user 1
    moved = float((singly - sums_of(dataclasses.replace(by_record, members=one_less), settings, frozen)).norm())
    assert 0.5 * CLIP < moved <= CLIP * (1 + 1e-3)
    rest = (users != 1)[None]
    moved = float((singly - sums_of(dataclasses.replace(by_record, members=rest), settings, frozen)).norm())
    assert CLIP < moved <= 6 * CLIP * (1 + 1e-3)


def reference_module(data: TrainingData, settings: TrainingSettings, frozen: Frozen) -> ReferenceModule:
    model = with_grad_sample_hooks(build_classifier(adapter_spec(data, settings), frozen))
    reference_train.initialise(model, settings, frozen, stream("init", 0))
    noise: Any = None  # no step is taken
    module = ReferenceModule(model, data, settings, noise, shadow=0, pad=1)
    module.configure_optimizers()
    return module


@pytest.mark.filterwarnings("ignore:.*Full backward hook is firing")
@pytest.mark.usefixtures("awake")
@pytest.mark.parametrize(("kind", "adaptation"), PAIRS)
def test_each_records_gradient_is_that_of_the_record_alone_whatever_stands_beside_it(
    family: Callable[[str], BaseModel], kind: str, adaptation: str
) -> None:
    data, frozen = at(family(kind))
    module = reference_module(data, opacus(adaptation), frozen)
    trained: dict[str, Any] = module.trained()
    module.record_losses(torch.arange(9)).sum().backward()  # type: ignore[no-untyped-call]
    together = {n: p.grad_sample for n, p in trained.items()}
    whole = max(float(g.norm()) for g in together.values())
    for record in (0, 5, 8):
        module.model.zero_grad(set_to_none=True)
        module.model.disable_hooks()
        module.record_losses(torch.tensor([record])).sum().backward()  # type: ignore[no-untyped-call]
        module.model.enable_hooks()
        for name, p in trained.items():
            apart = float((together[name][record] - p.grad).norm())
            assert apart <= 1e-5 * float(p.grad.norm()) + 1e-8 * whole, (
                name
            )  # gradients by key biases are rounding alone
    assert together.keys() == {n for n, p in module.model.named_parameters() if p.requires_grad}


def test_full_adaptation_trains_all_but_embeddings_and_poolers(family: Callable[[str], BaseModel]) -> None:
    for kind in FAMILIES:
        data, frozen = at(family(kind))
        model = build_classifier(adapter_spec(data, opacus("full")), frozen)
        frozen_ones = [n for n, p in model.named_parameters() if not p.requires_grad]
        assert all("embed" in n or ".wte." in n or ".wpe." in n for n in frozen_ones)
        embeddings = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
        assert len(frozen_ones) == len(embeddings)
    data, frozen = at(unknown(family("bert"), "albert"))
    model = build_classifier(adapter_spec(data, opacus("full")), frozen)
    assert not any(p.requires_grad for n, p in model.named_parameters() if "pooler" in n)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_at_depth_0_every_adaptation_is_the_head_alone(family: Callable[[str], BaseModel], adaptation: str) -> None:
    data, frozen = at(family("bert"))
    trained = train(data, opacus(adaptation, 0, steps=2), frozen, stream)
    assert {n.removeprefix("_module.") for n in trained.bank.states[0]} == {"head.weight", "head.bias"}
    plain = train(data, opacus("lora", 0, steps=2), frozen, stream)
    torch.testing.assert_close(log_probs(trained.bank, data.packed), log_probs(plain.bank, data.packed))


def test_where_opacus_gives_a_batch_one_gradient_the_training_ends(
    family: Callable[[str], BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Position embeddings are looked up once a batch: trained, they would get its sum."""
    data, frozen = at(family("bert"))
    monkeypatch.setattr(adapters, "_all_but_embeddings", lambda encoder: encoder.requires_grad_(True))
    with pytest.raises(InputError, match=r"one row a record.*position_embeddings"):
        train(data, opacus("full"), frozen, stream)
    monkeypatch.setattr(reference_train, "check_per_record_gradients", lambda *_, **__: None)
    with pytest.raises(TrialError, match="a gradient for each of"):
        train(data, opacus("full"), frozen, stream)


@pytest.mark.parametrize(
    ("kind", "adaptation", "targets", "depth", "told"),
    [
        ("deberta-v2", "lora", "query_value", 1, r"one row a record.*query_proj"),  # asked of relative positions too
        ("opt", "lora", "all_linear", 1, r"one row a record.*fc1"),  # records laid end to end
        ("opt", "full", "query_value", 1, r"one row a record.*fc1"),
        ("mpnet", "lora", "query_value", 1, "targets must be 'all_linear'"),
        ("albert", "lora", "all_linear", 1, "adapted_layers must be 2 or 0"),  # shared weights
        ("albert", "lora", "all_linear", 3, "adapted_layers must be <= 2"),
        ("mpnet", "prefix", "query_value", 1, "must run under PEFT and Opacus"),
        ("distilbert", "prefix", "query_value", 1, "adaptation must be 'lora' or 'full'"),
    ],
)
def test_what_cannot_be_trained_by_record_is_refused_before_a_step(
    family: Callable[[str], BaseModel], kind: str, adaptation: str, targets: str, depth: int, told: str
) -> None:
    data, frozen = at(unknown(family("bert"), kind) if kind in OWN else family(kind))
    sums = Sums()
    with pytest.raises(InputError, match=told):
        train(data, opacus(adaptation, depth, sums, targets=targets), frozen, stream)
    assert not sums.steps


@pytest.mark.usefixtures("awake")
@pytest.mark.parametrize(("kind", "depth"), [("mpnet", 1), ("albert", 2), ("gpt_neox", 1)])
def test_all_linear_layers_of_an_unknown_model_are_found_and_clipped(
    family: Callable[[str], BaseModel], kind: str, depth: int
) -> None:
    base = unknown(family("bert"), kind)
    data, frozen = at(base)
    names = layers_of_unknown(copy.deepcopy(base.model), Depth(adapted_layers=depth, targets="all_linear"))
    assert names
    assert not any("pooler" in name for name in names)
    assert kind == "albert" or all(".1." in name for name in names)  # the upper of two layers
    settings = opacus("lora", depth, targets="all_linear", dp=noisy(1.0))
    less = dataclasses.replace(data, members=(data.units != 7)[None])
    moved = float((sums_of(data, settings, frozen) - sums_of(less, settings, frozen)).norm())
    assert 0.5 * CLIP < moved <= CLIP * (1 + 1e-3)


def test_whether_a_model_is_a_decoder_is_asked_of_it_and_agrees_with_the_table(
    family: Callable[[str], BaseModel],
) -> None:
    for kind in ("bert", "roberta", "distilbert", "gpt2", "llama", "qwen3"):
        assert sees_no_later_token(family(kind).model) == is_causal(family(kind).model)
    told = {kind: is_causal(unknown(family("bert"), kind).model) for kind in OWN}
    assert told == {"gpt_neox": True, "opt": True, "mpnet": False, "albert": False, "deberta-v2": False}
    assert not is_causal(family("electra").model)


@pytest.mark.parametrize("kind", ["gpt_neox", "opt"])
def test_unknown_decoders_are_pooled_at_their_last_token(family: Callable[[str], BaseModel], kind: str) -> None:
    """Texts that begin alike: a first token, which sees nothing else, could not tell them apart."""
    base = unknown(family("gpt2"), kind)
    out = encode(base, ["aab", "aabxy"], max_length=24)
    with torch.no_grad():
        ids = torch.tensor(base.tokenizer("aab")["input_ids"])[None]
        own = base.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
    np.testing.assert_allclose(out.pooled[0], own[-1], atol=1e-4)
    data, frozen = at(base)
    assert frozen.causal
    model = build_classifier(adapter_spec(data, opacus("lora")), frozen)
    torch.nn.init.ones_(model.head.weight)
    model.requires_grad_(False)
    ids, mask = pad_token_ids(data.packed, torch.arange(6), 1)
    changed = ids.clone()
    last = mask.sum(1) - 1
    changed[torch.arange(6), last] = 10
    features = torch.zeros(6, data.packed.features.shape[1])
    assert float((model(ids, mask, features) - model(changed, mask, features)).abs().min()) > 1e-4


def test_what_was_cached_of_a_decoder_under_a_key_that_named_no_token_is_not_read(
    family: Callable[[str], BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such files held the first token. Those of encoders held what they hold now, and are read on."""

    def cached(base: BaseModel, done: Callable[[int], None] | None = None) -> tuple[TrunkCache, torch.Tensor]:
        cache = TrunkCache(tmp_path / str(base.model.config.model_type), b"k" * 32, base, max_length=24)
        scaling = constants(base, max_length=24, cut=Cut(0, 0))
        return cache, cache.packed(["aab", "aabxy"], scaling, feature="pooled", progress=done).features

    for kind in ("gpt_neox", "albert"):
        base = unknown(family("gpt2"), kind)
        with monkeypatch.context() as earlier:
            for module in ("trunk.encode", "trunk.cache", "bank.feature_scaling"):
                earlier.setattr(f"moo.models.{module}.is_causal", lambda _: False)
            cache, first = cached(base)
            scope = f"{base.digest}|0|24|False|whole|aab"
            assert hmac.new(b"k" * 32, scope.encode(), "sha256").digest() in cache._at
        done: list[int] = []
        _, pooled = cached(base, done.append)
        assert done[0] == (0 if kind == "gpt_neox" else 2)  # texts that were there
        out = encode(base, ["aab", "aabxy"], max_length=24)
        own = constants(base, max_length=24, cut=Cut(0, 0)).pooled_features(out.pooled)
        np.testing.assert_allclose(pooled, own, atol=1e-4)
        told_apart = float((pooled[0] - pooled[1]).abs().max()) > 1e-2
        assert told_apart
        assert (float((first[0] - first[1]).abs().max()) < 1e-4) == (kind == "gpt_neox")


def test_no_dropout_is_drawn_as_a_module_or_as_a_function(family: Callable[[str], BaseModel]) -> None:
    """OPT calls the function, with a probability of its own."""
    data, frozen = at(unknown(family("bert"), "opt", dropout=0.5))
    module = reference_module(data, opacus("lora"), frozen)
    torch.nn.init.normal_(module.model._module.head.weight)
    first, again = (module.record_losses(torch.arange(5)) for _ in range(2))
    assert torch.equal(first, again)


def test_moving_the_copy_leaves_the_base_models_embeddings_where_they_are(family: Callable[[str], BaseModel]) -> None:
    """Another precision stands for another device: torch moves parameters in the same way."""
    data, frozen = at(family("bert"))
    words = frozen.base.model.get_input_embeddings().weight
    model = build_classifier(adapter_spec(data, opacus("lora")), frozen)
    own = model.encoder.get_base_model().get_input_embeddings().weight
    assert own.data_ptr() == words.data_ptr()  # the same memory until then
    model.double()
    assert (own.dtype, words.dtype) == (torch.float64, torch.float32)


def test_an_adapter_that_stays_and_a_frozen_weight_that_moves_end_the_trial(
    family: Callable[[str], BaseModel],
) -> None:
    class Nudge(lightning.Callback):
        """Moves one frozen weight of the copy."""

        def on_train_batch_end(
            self,
            trainer: Any,  # noqa: ARG002
            pl_module: Any,
            outputs: Any,  # noqa: ARG002
            batch: Any,  # noqa: ARG002
            batch_idx: int,  # noqa: ARG002
        ) -> None:
            frozen_ones = [p for p in pl_module.model.parameters() if not p.requires_grad]
            frozen_ones[-1].data += 1e-3

    data, frozen = at(family("bert"))
    nobody = dataclasses.replace(data, members=np.zeros((1, N), bool))
    with pytest.raises(TrialError, match=r"Every adapter must move, but .*lora_A.* did not") as still:
        train(nobody, opacus("lora"), frozen, stream)
    assert still.value.cause == "adapter did not move"
    with pytest.raises(TrialError, match=r"The frozen model must not move, but .* did") as moved:
        train(data, opacus("lora", 1, Nudge(), dp=noisy(1.0)), frozen, stream)
    assert moved.value.cause == "base weights moved"
