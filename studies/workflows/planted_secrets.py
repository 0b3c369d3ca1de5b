"""Secrets of a memorisation test: random codes behind prompts, and their exposure in a trained model."""

import itertools
from dataclasses import dataclass

import numpy as np

from moo.core import validate
from moo.models.generation.generator import Generator, Ids
from moo.models.generation.scoring import continuation_losses, greedy
from moo.objectives.memorisation.exposure import exposure
from moo.privacy.keys import StudyKey
from moo.studies.results.memorisation_report import Canary
from moo.studies.setup.study_data import Stage, no_stage

_LETTERS = list("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, kw_only=True)
class MemoriseOptions:
    """Options of a memorisation test.

    Attributes:
        canaries: Number of planted secrets; as many more are not planted.
        repeats: Number of texts that hold a planted secret; each is one more unit.
        digits: Number of digits of a secret.
        confidence: Confidence of the emission rate's one-sided upper bound, a fraction in (0, 1).
        stage: Callback that hears of each stage.
        key: Secret of codes, batches and noise; by default a fresh one from the operating system, which is
            not kept.
    """

    canaries: int = 32
    repeats: int = 1
    digits: int = 3
    confidence: float = 0.95
    stage: Stage = no_stage
    key: StudyKey | None = None

    def __post_init__(self) -> None:
        validate.whole(2, 100_000, canaries=self.canaries)
        validate.whole(1, 1000, repeats=self.repeats)
        validate.whole(1, 5, digits=self.digits)
        validate.in_range(1e-6, 1 - 1e-6, confidence=self.confidence)


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Prompts of 2 m secrets and the code of each; the first m are planted."""

    prompts: tuple[str, ...]
    prompt_ids: tuple[Ids, ...]
    codes: tuple[str, ...]
    code_ids: tuple[Ids, ...]
    chosen: tuple[int, ...]

    @classmethod
    def drawn(cls, base: Generator, options: MemoriseOptions, rng: np.random.Generator) -> "Secrets":
        handles = {"".join(rng.choice(_LETTERS, 8)) for _ in range(2 * options.canaries)}
        # one in 2 x 10^11 pairs is alike
        while len(handles) < 2 * options.canaries:
            handles.add("".join(rng.choice(_LETTERS, 8)))
        prompts = tuple(f"The service code of customer {handle} is " for handle in rng.permutation(sorted(handles)))
        codes = tuple("".join(digits) for digits in itertools.product("0123456789", repeat=options.digits))
        return cls(
            prompts=prompts,
            prompt_ids=base.ids(prompts),
            codes=codes,
            code_ids=base.ids(codes),
            chosen=tuple(int(i) for i in rng.integers(len(codes), size=len(prompts))),
        )

    def text(self, i: int) -> Ids:
        """Return secret i in full, as it is planted."""
        return self.prompt_ids[i] + self.code_ids[self.chosen[i]]


def score_secrets(generator: Generator, secrets: Secrets, stage: Stage) -> tuple[Canary, ...]:
    """Return rank, exposure and emission of the secrets, each among all codes behind its prompt."""
    out, n = [], len(secrets.prompts)
    for i in range(n):
        stage("asking for secrets", i + 1, n)
        losses = continuation_losses(generator, secrets.prompt_ids[i], secrets.code_ids).numpy()
        secret = np.arange(len(losses)) == secrets.chosen[i]
        bits = float(exposure(losses[secret], losses[~secret])[0])
        code = secrets.code_ids[secrets.chosen[i]]
        out.append(
            Canary(
                prompt=secrets.prompts[i],
                secret=secrets.codes[secrets.chosen[i]],
                rank=round(len(losses) / 2**bits),
                exposure=bits,
                emitted=greedy(generator, secrets.prompt_ids[i], len(code)) == code,
            )
        )
    return tuple(out)
