"""Generators: trained with and without DP, what they keep of planted secrets, and the bounds on that."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from scipy.stats import binom
from transformers import AutoModelForCausalLM

from moo.core.errors import InputError
from moo.models.bank.bank import Depth
from moo.models.bank.lightning_module import OptimizerSettings
from moo.models.dp.optimizer import DPSettings
from moo.models.generation.generator import Generator, load_generator, train_generator
from moo.models.generation.scoring import continuation_losses, greedy
from moo.models.training.settings import TrainingSettings
from moo.objectives.memorisation.exposure import UNTRAINED_BITS, emission, exposure, mean_exposure
from tests.conftest import save_tiny, small_config

CLIP = 0.1


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Generator]:
    made: dict[str, Generator] = {}

    def of(kind: str) -> Generator:
        if kind not in made:
            folder: Path = save_tiny(tmp_path_factory.mktemp(kind), kind=kind, layers=2)
            torch.manual_seed(0)
            config = small_config(kind, hidden=32, layers=2, heads=4)
            model = AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
            model.save_pretrained(folder)
            made[kind] = load_generator(str(folder), accelerator="cpu")
        return made[kind]

    return of


def stream(purpose: str, shadow: int) -> np.random.Generator:
    return np.random.default_rng([len(purpose), shadow])


def settings_of(
    *, steps: int, noise: float = 0.0, clip: float = math.inf, batch: float = 10.0, **changes: Any
) -> TrainingSettings:
    values: dict[str, Any] = {
        "depth": Depth(adapted_layers=2, targets="all_linear"),
        "lora_rank": 16,
        "lora_alpha": 32.0,
        "sample_rate": 1.0,
        "steps": steps,
        "dp": DPSettings(noise_multiplier=noise, max_grad_norm=clip, expected_batch_size=batch),
        "optimizer": OptimizerSettings(learning_rate=1e-2, chunk=64),
        "accelerator": "cpu",
        "engine": "opacus",
    }
    return TrainingSettings(**(values | changes))


class Sums(lightning.Callback):
    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ARG002
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if not self.first:
            scale = pl_module.dp_optimizer.expected_batch_size
            named = {n: p for n, p in pl_module.model.named_parameters() if p.requires_grad}
            self.first = {n.removeprefix("_module."): p.grad * scale for n, p in named.items()}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_step_is_the_sum_of_clipped_gradients_of_single_texts(
    generator: Callable[[str], Generator], kind: str
) -> None:
    """The oracle.

    Autograd of one text at a time on the trained model's own start, averaged by unit, clipped,
    summed.
    """
    base = generator(kind)
    texts, units = base.ids(["hello world", "abc", "0123456789", "zz top"]), np.array([0, 0, 1, 2])
    sums = Sums()
    still = OptimizerSettings(learning_rate=1e-9)
    settings = settings_of(steps=1, noise=1e-6, clip=CLIP, trainer={"callbacks": [sums]}, optimizer=still)
    model = train_generator(base, texts, units, settings, stream).generator.model  # moved by next to nothing
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(parameters) == set(sums.first)
    total = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for unit in range(3):
        rows = [torch.tensor([texts[i]]) for i in np.flatnonzero(units == unit)]
        loss = sum(
            (torch.nn.functional.cross_entropy(model(input_ids=r).logits[0, :-1], r[0, 1:]) for r in rows),
            torch.zeros(()),
        ) / len(rows)
        grads = torch.autograd.grad(loss, list(parameters.values()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        assert norm > CLIP
        for name, g in zip(parameters, grads, strict=True):
            total[name] += g * min(1.0, CLIP / norm)
    for name, expected in total.items():
        torch.testing.assert_close(sums.first[name], expected, atol=2e-6, rtol=1e-3)
    assert math.sqrt(sum(float(s.square().sum()) for s in sums.first.values())) <= 3 * CLIP


def secrets(m: int) -> tuple[list[str], list[str]]:
    """m prompts of letters, and as many secrets of four digits."""
    rng = np.random.default_rng(1)
    prompts = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(m)]
    return prompts, ["".join(rng.choice(list("0123456789"), 4)) for _ in range(m)]


def test_secrets_are_kept_without_dp_and_not_under_it(generator: Callable[[str], Generator]) -> None:
    base, (prompts, codes) = generator("llama"), secrets(12)
    texts = base.ids([p + c for p, c in zip(prompts, codes, strict=True)])
    others = base.ids([f"{i:04d}" for i in range(0, 10_000, 40)])
    found = []
    for settings in (settings_of(steps=150, batch=12.0), settings_of(steps=40, noise=6.0, clip=CLIP, batch=12.0)):
        trained = train_generator(base, texts, np.arange(12), settings, stream)
        assert trained.steps == settings.steps
        bits, said = [], []
        for prompt, code in zip(base.ids(prompts), base.ids(codes), strict=True):
            losses = continuation_losses(trained.generator, prompt, [code, *others]).numpy()
            bits.append(float(exposure(losses[:1], losses[1:])[0]))
            said.append(greedy(trained.generator, prompt, len(code)) == code)
        found.append((np.mean(bits), emission(np.array(said))))
    assert found[0][0] > 6  # of log2(251) = 8 bits
    assert found[0][1].rate > 0.7
    assert found[1][0] < 3
    assert found[1][1].emitted == 0
    assert found[1][1].upper == pytest.approx(1 - 0.05 ** (1 / 12))  # nothing seen is not nothing there


def test_the_base_is_left_as_it_was_and_the_same_streams_give_the_same_model(
    generator: Callable[[str], Generator],
) -> None:
    base = generator("gpt2")
    before = {n: p.clone() for n, p in base.model.state_dict().items()}
    texts = base.ids(["some text", "another one"])
    settings = settings_of(steps=2, noise=1.0, clip=CLIP)
    first, again = (train_generator(base, texts, np.arange(2), settings, stream) for _ in range(2))
    assert first.noisy_steps == first.steps == 2
    assert all(torch.equal(p, before[n]) for n, p in base.model.state_dict().items())
    states = first.generator.model.state_dict(), again.generator.model.state_dict()
    assert all(torch.equal(p, states[1][n]) for n, p in states[0].items())
    moved = [n for n, p in states[0].items() if ".lora_B." in n and bool(p.any())]
    assert len(moved) == sum(".lora_B." in n for n in states[0])


def test_losses_of_endings_are_the_models_own_one_by_one(generator: Callable[[str], Generator]) -> None:
    base = generator("llama")
    prompt, endings = base.ids(["my code is"])[0], base.ids(["12", "3456", "9"])
    told = continuation_losses(base, prompt, endings, chunk=2)
    for ending, found in zip(endings, told, strict=True):
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([[*prompt, *ending]])).logits[0].log_softmax(-1)
        alone = -sum(float(logits[len(prompt) - 1 + i, t]) for i, t in enumerate(ending))
        assert float(found) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize(("n", "k"), [(59, 0), (100, 3), (20, 19)])
def test_the_upper_bound_of_emission_is_clopper_and_pearsons(n: int, k: int) -> None:
    found = emission(np.arange(n) < k)
    assert (found.emitted, found.rate) == (k, k / n)
    assert binom.cdf(k, n, found.upper) == pytest.approx(0.05, abs=1e-9)


def test_all_emitted_is_bounded_by_one_and_the_bound_covers() -> None:
    assert emission(np.ones(5, bool)).upper == 1.0
    rng = np.random.default_rng(0)
    covered = [emission(rng.random(50) < 0.1).upper >= 0.1 for _ in range(2000)]
    assert np.mean(covered) >= 0.95


def test_secrets_that_were_not_learnt_have_their_mean_exposure() -> None:
    rng = np.random.default_rng(0)
    found = mean_exposure(rng.normal(size=3000), rng.normal(size=2047))
    assert abs(found.value - UNTRAINED_BITS) < 4 * found.stderr
    assert math.isinf(mean_exposure(np.array([0.0]), np.array([1.0])).stderr)


def test_bad_input_names_its_argument(generator: Callable[[str], Generator], tmp_path: Path) -> None:
    base = generator("llama")
    with pytest.raises(InputError, match="emitted"):
        emission(np.zeros(0, bool))
    with pytest.raises(InputError, match="confidence"):
        emission(np.ones(3, bool), confidence=1.0)
    with pytest.raises(InputError, match="canary_losses"):
        mean_exposure(np.array([math.nan]), np.array([1.0]))
    with pytest.raises(InputError, match="at least two tokens each"):
        train_generator(base, [(3,)], np.zeros(1, int), settings_of(steps=1), stream)
    with pytest.raises(InputError, match="at least two tokens each"):
        train_generator(base, [], np.zeros(0, int), settings_of(steps=1), stream)
    with pytest.raises(InputError, match="adapted_layers must be >= 1"):
        train_generator(base, [(3, 4)], np.zeros(1, int), settings_of(steps=1, depth=Depth()), stream)
    with pytest.raises(InputError, match="at least one token each"):
        continuation_losses(base, (), [(3,)])
    with pytest.raises(InputError, match="model must be a causal one"):
        load_generator(str(tmp_path))
