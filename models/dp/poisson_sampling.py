"""Poisson sampling of units of privacy for K shadows at once, with coins for each shadow."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from moo.core.errors import InputError
from moo.models.trunk.packed import STEP, rounded_up

Ints = NDArray[np.int64]
# Batches that Lightning may draw ahead.
_REMEMBERED = 16


@dataclass(frozen=True)
class Batch:
    """Records that K shadows train on in one step.

    Units are sorted by number of records and length, so that a slice of them needs little padding.
    Shadows draw different numbers of units: the empty places of a shadow come first, where units
    are smallest.

    Attributes:
        index: Shape (K, U, M). Records of each sampled unit. A padded place repeats the unit's own
            first record, never another person's: a non-finite number times a weight of 0 is not
            finite. Absent units hold the shortest text.
        weights: Shape (K, U, M). 1 / (records of the unit in this batch); 0 in padded places.
        present: Shape (K, U). True for sampled units.
        sizes: U non-decreasing numbers: records of the largest unit so far, over all shadows.
        absent: Number of leading places that hold a unit in no shadow; U was rounded up.
    """

    index: Tensor
    weights: Tensor
    present: Tensor
    sizes: tuple[int, ...]
    absent: int = 0

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        index, weights, present = (t.to(device, non_blocking=True) for t in (self.index, self.weights, self.present))
        return Batch(index, weights, present, self.sizes, self.absent)

    def chunks(self, places: int) -> Iterator["Batch"]:
        """Yield slices of whole units of about `places` records per shadow, at least one unit each.

        All slices but the last hold a present unit.
        """
        start = 0
        while start < len(self.sizes):
            stop = start + 1
            while stop < len(self.sizes) and (stop + 1 - start) * self.sizes[stop] <= places:
                stop += 1
            if stop - start > STEP and stop < len(self.sizes):
                stop -= (stop - start) % STEP
            m = self.sizes[stop - 1]
            part = (slice(None), slice(start, stop))
            if stop > self.absent or stop == len(self.sizes):
                yield Batch(
                    self.index[part][..., :m],
                    self.weights[part][..., :m],
                    self.present[part],
                    self.sizes[start:stop],
                    max(0, self.absent - start),
                )
            start = stop


@dataclass(frozen=True)
class _Drawn:
    """Units that one shadow trains on in one step: records in sequence, and counts."""

    records: Ints
    counts: Ints


class PoissonBatches(IterableDataset[Batch]):
    """Batches of K shadows, one per step: each unit of a shadow's half enters by one coin flip.

    The number of units in a batch varies, and may be zero; the normaliser of the step never depends
    on it.

    Args:
        units: Shape (n,). Unit of each record, 0..U-1.
        lengths: Shape (n,). Tokens of each record; only the layout depends on it.
        members: Shape (K, n). True where a shadow is trained on the record; all records of a unit
            share one value.
        sample_rate: Probability with which a unit enters a batch, in (0, 1].
        steps: Number of batches.
        generators: K secret streams.
        max_records: Most records of a unit in one step; a random subset is kept if there are more.

    Raises:
        InputError: If the sample rate is out of range, or a unit is split between members and
            non-members.
    """

    def __init__(
        self,
        *,
        units: Ints,
        lengths: Ints,
        members: NDArray[np.bool_],
        sample_rate: float,
        steps: int,
        generators: Sequence[np.random.Generator],
        max_records: int = 16,
    ) -> None:
        super().__init__()
        if not 0 < sample_rate <= 1:
            raise InputError(
                "sample_rate must be in (0, 1], got {sample_rate!r}; it is the share of units in a batch.",
                sample_rate=sample_rate,
            )
        self._order = np.argsort(units, kind="stable")
        self._starts = np.searchsorted(units[self._order], np.arange(int(units.max()) + 2))
        self._lengths, self._shortest = lengths, int(lengths.argmin())
        self._halves = [_units_of(units, row) for row in members]
        self._sample_rate, self._steps = sample_rate, steps
        self._generators, self._max_records = list(generators), max_records
        self._start = 0
        self._before: deque[tuple[int, list[Any]]] = deque(maxlen=_REMEMBERED)

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self._start, self._steps):
            self._before.append((step, self._states()))
            yield self._assemble([self._draw(k) for k in range(len(self._halves))])

    def states_before(self, step: int) -> list[Any]:
        """Return the states of the generators before the batch of a step was drawn.

        The loader may be a few batches ahead of the training.
        """
        return next((states for drawn, states in self._before if drawn == step), self._states())

    def resume_at(self, step: int, states: Sequence[Any]) -> None:
        """Begin at a step, with the generators in their states before it."""
        self._start = step
        for generator, state in zip(self._generators, states, strict=True):
            generator.bit_generator.state = state

    def _states(self) -> list[Any]:
        return [generator.bit_generator.state for generator in self._generators]

    def _chosen(self, shadow: int) -> Ints:
        """Draw the units of a shadow's half that enter the batch."""
        half = self._halves[shadow]
        return half[self._generators[shadow].random(len(half)) < self._sample_rate]

    def _draw(self, shadow: int) -> _Drawn:
        rng, chosen = self._generators[shadow], self._chosen(shadow)
        starts, counts = self._starts[chosen], self._starts[chosen + 1] - self._starts[chosen]
        firsts = np.cumsum(counts) - counts
        records = self._order[np.repeat(starts - firsts, counts) + np.arange(counts.sum())]
        # Backwards, so that earlier places stay valid.
        for unit in np.flatnonzero(counts > self._max_records)[::-1]:
            own = records[firsts[unit] : firsts[unit] + counts[unit]]
            kept = np.sort(rng.choice(own, self._max_records, replace=False))
            records = np.concatenate([records[: firsts[unit]], kept, records[firsts[unit] + counts[unit] :]])
            counts[unit] = self._max_records
        return _sorted(_Drawn(records, counts), self._lengths)

    def _assemble(self, drawn: list[_Drawn]) -> Batch:
        drawn_most = max(len(d.counts) for d in drawn)
        n_units = rounded_up(max(1, drawn_most))
        most = max((int(d.counts.max()) for d in drawn if len(d.counts)), default=1)
        index = np.full((len(drawn), n_units, most), self._shortest)
        weights = np.zeros((len(drawn), n_units, most), np.float32)
        present = np.zeros((len(drawn), n_units), bool)
        sizes = np.ones((len(drawn), n_units), int)
        for shadow, (records, counts) in enumerate((d.records, d.counts) for d in drawn):
            first = n_units - len(counts)
            present[shadow, first:] = True
            rows = first + np.repeat(np.arange(len(counts)), counts)
            columns = np.arange(len(records)) - np.repeat(np.cumsum(counts) - counts, counts)
            index[shadow, first:] = records[np.cumsum(counts) - counts, None]
            index[shadow, rows, columns] = records
            weights[shadow, rows, columns] = np.repeat(1 / counts, counts)
            sizes[shadow, first:] = counts
        largest = np.maximum.accumulate(sizes.max(0)).tolist()
        tensors = torch.from_numpy(index), torch.from_numpy(weights), torch.from_numpy(present)
        return Batch(*tensors, tuple(largest), n_units - drawn_most)


def _sorted(drawn: _Drawn, lengths: Ints) -> _Drawn:
    """Return the units sorted by number of records, then by their longest text."""
    if not len(drawn.counts):
        return drawn
    firsts = np.cumsum(drawn.counts) - drawn.counts
    order = np.lexsort((np.maximum.reduceat(lengths[drawn.records], firsts), drawn.counts))
    counts = drawn.counts[order]
    places = np.repeat(firsts[order] - (np.cumsum(counts) - counts), counts) + np.arange(len(drawn.records))
    return _Drawn(drawn.records[places], counts)


def _units_of(units: Ints, members: NDArray[np.bool_]) -> Ints:
    """Return the units of one shadow's half.

    Raises:
        InputError: If a unit is split: its privacy would not be what is accounted.
    """
    inside, outside = np.unique(units[members]), units[~members]
    if np.isin(inside, outside).any():
        raise InputError(
            "All records of a unit must be members together, but those of one unit are split; draw members by unit."
        )
    return inside.astype(np.int64)


class PoissonDataModule(lightning.LightningDataModule):
    """Data module that hands batches to Lightning unchanged: no sampler, shuffling, collation."""

    def __init__(self, batches: PoissonBatches) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of the batches as they are."""
        return DataLoader(self.batches, batch_size=None)

    def transfer_batch_to_device(
        self,
        batch: Batch,
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> Batch:
        """Move a batch to the training's device."""
        return batch.to(device)
