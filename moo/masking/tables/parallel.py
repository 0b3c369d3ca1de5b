"""Records masked in processes, in order, with a bounded number of them under way."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Any

from moo.masking.tables.columns import ColumnPlan, MentionCounts, mask_record

# records that go to a process at a time
_CHUNK = 512
# chunks under way, for each process
_AHEAD = 2

Record = Mapping[str, Any]


def mask_records(
    records: Iterable[Record], plan: ColumnPlan, counts: MentionCounts, *, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Yield each record masked, in order; see `mask_record`.

    Args:
        records: Records, read when they are needed, at most a few thousand ahead.
        plan: Plan of the columns.
        counts: Counter to which the masked mentions are added.
        workers: Processes; 1 masks in this one. The result is the same.
    """
    if workers == 1:
        yield from (mask_record(record, plan, counts) for record in records)
        return
    source = iter(records)
    under_way: deque[Future[tuple[list[dict[str, Any]], MentionCounts]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            while True:
                while len(under_way) < _AHEAD * workers and (chunk := list(islice(source, _CHUNK))):
                    under_way.append(pool.submit(_mask_chunk, chunk, plan))
                if not under_way:
                    return
                masked, counted = under_way.popleft().result()
                counts.update(counted)
                yield from masked
        finally:
            for future in under_way:
                future.cancel()


def _mask_chunk(records: Sequence[Record], plan: ColumnPlan) -> tuple[list[dict[str, Any]], MentionCounts]:
    counts: MentionCounts = Counter()
    return [mask_record(record, plan, counts) for record in records], counts
