"""Records masked in processes, in order, with a bounded number of them under way."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Any

from moo.masking.tables.columns import Columns, Seen, mask_record

_CHUNK = 512  # records that go to a process at a time
_AHEAD = 2  # chunks for each process that are under way

Record = Mapping[str, Any]


def mask_records(
    records: Iterable[Record], columns: Columns, seen: Seen, *, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Each record masked, in the order in which they come; see `mask_record`.

    Args:
        records: Read as they are wanted, at most a few thousand ahead.
        columns: How.
        seen: Counts what was masked.
        workers: Processes; 1 masks in this one. The result is the same.
    """
    if workers == 1:
        yield from (mask_record(record, columns, seen) for record in records)
        return
    source = iter(records)
    under_way: deque[Future[tuple[list[dict[str, Any]], Seen]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            while True:
                while len(under_way) < _AHEAD * workers and (chunk := list(islice(source, _CHUNK))):
                    under_way.append(pool.submit(_mask_chunk, chunk, columns))
                if not under_way:
                    return
                masked, counted = under_way.popleft().result()
                seen.update(counted)
                yield from masked
        finally:
            for future in under_way:
                future.cancel()


def _mask_chunk(records: Sequence[Record], columns: Columns) -> tuple[list[dict[str, Any]], Seen]:
    seen: Seen = Counter()
    return [mask_record(record, columns, seen) for record in records], seen
