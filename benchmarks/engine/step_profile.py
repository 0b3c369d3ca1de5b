"""Time of a training step, operation by operation.

python -m benchmarks.engine.step_profile [--records 4000] [--steps 10] [--layers 1] [--rows 30]

One thread and its own CPU time, so that other work on the machine disturbs it little. The clock
around every operation takes time itself: views and other small operations look dearer than they
are, and the first number, without the clock, is the one to quote.
"""

import argparse
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.engine.floor import floor
from benchmarks.engine.handwritten import Recipe
from benchmarks.setting import by_engine, pairs, ready

# Operation, and shapes of its arguments.
Key = tuple[str, str]


class Clock(TorchDispatchMode):
    """Seconds of the thread by operation and shapes of its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[Key, float] = defaultdict(float)
        self.calls: dict[Key, int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        started = time.thread_time()
        out = func(*args, **(kwargs or {}))
        key = str(func.overloadpacket).removeprefix("aten."), " ".join(_shapes(args))
        self.seconds[key] += time.thread_time() - started
        self.calls[key] += 1
        return out


def _shapes(args: tuple[Any, ...]) -> Iterator[str]:
    for a in args:
        if isinstance(a, Tensor):
            yield f"{str(a.dtype).removeprefix('torch.')}[{','.join(map(str, a.shape))}]"


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("records", 4000), ("steps", 10), ("layers", 1), ("rows", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(
        layers=options.layers, steps=options.steps, noise_multiplier=1.0, expected_batch_size=0.25 * options.records / 2
    )
    at, members = ready(options.records, recipe), pairs(options.records)
    by_engine(at, dataclasses.replace(recipe, steps=1), members)
    examples = members.sum() * recipe.sample_rate * recipe.steps
    whole = 1e6 / examples * min(_cpu_seconds(lambda: by_engine(at, recipe, members)) for _ in range(3))
    with Clock() as clock:
        by_engine(at, recipe, members)
    microseconds = {key: 1e6 * s / examples for key, s in clock.seconds.items()}
    clocked = sum(microseconds.values())
    below = floor(at, recipe, members, clock=time.thread_time)["floor_us"]
    print(
        f"{whole:.1f} us an example-step, {whole / below:.2f} times the floor of {below:.1f}; "
        f"under the clock {clocked:.1f}"
    )
    by_operation: dict[str, float] = defaultdict(float)
    for (name, _), us in microseconds.items():
        by_operation[name] += us
    for name, us in sorted(by_operation.items(), key=lambda item: -item[1])[: options.rows]:
        print(f"{us:7.2f}  {name}")
    print()
    for key, us in sorted(microseconds.items(), key=lambda item: -item[1])[: options.rows]:
        print(f"{us:7.2f}  {clock.calls[key] / recipe.steps:6.1f} a step  {key[0]} {key[1]}")


if __name__ == "__main__":
    main()
