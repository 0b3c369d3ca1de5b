"""MovieLens-100K as two data sets: `recommendation` (a user likes a title) and `profiling` (the user's age band).

943 real people and their 100,000 ratings of 1997-98. A record is made of one user's own ratings and the public
catalogue alone, so every step of the preparation is of scope "user", but for the choice of the first users. Times, ages
and genders are real; the columns for the law that no such table has (consent, purpose, withdrawal, retention) are
synthetic, and declared so.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.core.trial_record import Transformation
from moo.data.records import Records, first_units
from moo.data.sources.download import RECBOLE, Progress, fetch_member

# titles that describe a user's taste in a recommendation's text
HISTORY = 10
# titles of one user to ask about
CANDIDATES = 8
# titles in a viewing window
WINDOW = 12
# windows of one user
WINDOWS = 5
# stars from which a title counts as liked
LIKED = 4
# year of the ages in the table
SURVEY_YEAR = 1998
# day after the last rating, at which the columns for the law are judged
SNAPSHOT = np.datetime64("1998-05-01", "D")
# lower ends of the age bands above the first; near the median, 31: nothing separates four bands (AUC .63)
BANDS = (30,)
BAND_NAMES = ("under 30", "30 and over")
DECLARATION = (
    "Users, ratings, times, ages, genders and occupations are real (MovieLens-100K, 1997-98). Consents, purposes, "
    "withdrawals and "
    "retention limits are synthetic; no guardian's consent is on record, and viewing histories are taken as not "
    "sensitive."
)
# spellings in the table of the one unknown title
_UNKNOWN = ("unknown", "unkonwn")
_ARTICLE = re.compile(r"^(?P<title>.+), (?P<article>The|An?|L[ae]s?|L'|Il|Das|Der|Die|El)$")
# (row of the title, liked) in the order of time
_Ratings = list[tuple[int, bool]]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Tables of MovieLens-100K.

    Attributes:
        ratings: user_id, item_id, rating (1 to 5), timestamp (seconds), sorted by user, time and title.
        users: Indexed by user_id: age, gender, occupation.
        titles: item_id -> title.
        years: item_id -> year of release; empty if it is not known.
        genres: item_id -> genres, lower case, separated by commas.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    titles: dict[int, str]
    years: dict[int, str]
    genres: dict[int, str]


def load_recommendation(*, n_records: int = 0, seed: int = 0, progress: Progress | None = None) -> Records:
    """Return records of the question "will this user like this title", with four stars or more.

    Args:
        n_records: Stop at the user that reaches this many records; 0 takes all.
        seed: Seed of the titles, the synthetic columns and the order of users; public.
        progress: Callback of the download, as in `fetch_member`.
    """
    return recommendation(_fetched(progress), n_records=n_records, seed=seed)


def load_profiling(*, n_records: int = 0, seed: int = 0, progress: Progress | None = None) -> Records:
    """Return records of viewing windows, labelled by the age band of the user; arguments of `load_recommendation`."""
    return profiling(_fetched(progress), n_records=n_records, seed=seed)


def _fetched(progress: Progress | None) -> Tables:
    return read_tables(*(fetch_member(RECBOLE, member, progress=progress) for member in RECBOLE.members))


def read_tables(ratings: Path, users: Path, items: Path) -> Tables:
    """Read the files as the archive holds them: tab-separated, with the type of a column behind its name."""
    of_items = _read(items)
    of_items = of_items[~of_items.movie_title.isin(_UNKNOWN)]
    rated = _read(ratings).astype({"rating": float})
    return Tables(
        ratings=rated[rated.item_id.isin(of_items.item_id)].sort_values(["user_id", "timestamp", "item_id"]),
        users=_read(users).set_index("user_id"),
        titles={int(i): _title(str(t)) for i, t in zip(of_items.item_id, of_items.movie_title, strict=True)},
        years={
            int(i): str(y) if str(y).isdigit() else ""
            for i, y in zip(of_items.item_id, of_items.release_year, strict=True)
        },
        genres={
            int(i): ", ".join(str(g).lower().split()) for i, g in zip(of_items.item_id, of_items["class"], strict=True)
        },
    )


def _read(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, sep="\t", quoting=3, keep_default_na=False, encoding="utf-8")
    return frame.rename(columns={c: c.partition(":")[0] for c in frame.columns})


def _title(title: str) -> str:
    """As people write it: "Usual Suspects, The" is "The Usual Suspects"; other titles in brackets are left out."""
    plain = re.sub(r" \(.*", "", title).strip()
    found = _ARTICLE.match(plain)
    if found is not None:
        gap = "" if found["article"].endswith("'") else " "
        return f"{found['article']}{gap}{found['title']}"
    return plain


def recommendation(tables: Tables, *, n_records: int = 0, seed: int = 0) -> Records:
    """Records of `load_recommendation` from tables that were read."""

    def of_user(rated: _Ratings, rng: np.random.Generator) -> Iterator[tuple[int, str, int]]:
        places = np.arange(HISTORY, len(rated))
        for at in sorted(rng.choice(places, size=min(CANDIDATES, len(places)), replace=False)):
            item, liked = rated[at]
            about = ", ".join(part for part in (tables.years[item], tables.genres[item]) if part)
            text = f"{tables.titles[item]} ({about}). {_taste(rated[at - HISTORY : at], tables)}"
            yield int(at), text, int(liked)

    return _records(tables, "recommendation", ("dislike", "like"), of_user, n_records, seed)


def profiling(tables: Tables, *, n_records: int = 0, seed: int = 0) -> Records:
    """Records of `load_profiling` from tables that were read. A user's label is the user's own age band."""

    def of_user(rated: _Ratings, _: np.random.Generator) -> Iterator[tuple[int, str, int]]:
        n = len(rated) // WINDOW
        for w in np.unique(np.linspace(0, n - 1, min(WINDOWS, n)).round().astype(int)):
            at = int(w) * WINDOW
            yield at + WINDOW - 1, _taste(rated[at : at + WINDOW], tables), -1

    return _records(tables, "profiling", BAND_NAMES, of_user, n_records, seed)


def _taste(rated: Sequence[tuple[int, bool]], tables: Tables) -> str:
    """Titles that a user liked and did not, oldest first."""
    sides = {"Liked": [i for i, liked in rated if liked], "Disliked": [i for i, liked in rated if not liked]}
    return " ".join(f"{side}: {'; '.join(tables.titles[i] for i in items)}." for side, items in sides.items() if items)


_Maker = Callable[
    [_Ratings, np.random.Generator], Iterator[tuple[int, str, int]]
]  # place, text, label; -1 for the age band


def _records(tables: Tables, name: str, classes: tuple[str, ...], make: _Maker, n_records: int, seed: int) -> Records:
    order = np.random.default_rng([1997, seed]).permutation(np.unique(tables.ratings.user_id))
    texts, labels, owners, times = [], [], [], []
    kept: list[int] = []
    cut = False
    for place, user in enumerate(map(int, order), start=1):
        mine = tables.ratings[tables.ratings.user_id == user]
        rated = [(int(i), r >= LIKED) for i, r in zip(mine.item_id, mine.rating, strict=True)]
        found = list(make(rated, np.random.default_rng([1998, seed, user])))
        if not found:
            continue
        kept.append(user)
        band = int(np.digitize(int(tables.users.age[user]), BANDS))
        for at, text, label in found:
            texts.append(text)
            labels.append(band if label < 0 else label)
            owners.append(len(kept) - 1)
            times.append(int(mine.timestamp.iloc[at]))
        if n_records and len(texts) >= n_records:
            cut = place < len(order)
            break
    if not texts:
        raise InputError(
            "users must have rated {history} titles or more, but none of {n_order} has.",
            history=max(HISTORY + 1, WINDOW),
            n_order=len(order),
        )
    units = np.array(owners, dtype=np.int64)
    people = tables.users.loc[kept]
    return Records(
        name=name,
        texts=tuple(texts),
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        units=units,
        unit_ids=tuple(f"movielens user {u}" for u in kept),
        unit_name="user",
        language="en",
        gold=((),) * len(texts),
        fields=({},) * len(texts),
        columns=_columns(people, units, np.array(times), seed),
        groups=_groups(people, units, with_age=name != "profiling"),
        transformations=(
            Transformation(
                name="windows", scope="user", detail="texts of a user's own ratings and the public catalogue"
            ),
            *([first_units(0, 0, frozen=True)] if cut else []),
        ),
        licence=RECBOLE.licence,
        declaration=DECLARATION,
    )


def _groups(people: pd.DataFrame, units: NDArray[np.int64], *, with_age: bool) -> dict[str, NDArray[np.int64]]:
    """Return the groups with a compared accuracy, without the age band if it is the label."""
    gender = np.asarray(people.gender == "F", dtype=np.int64)[units]
    band = np.digitize(np.asarray(people.age), BANDS).astype(np.int64)[units]
    return {"gender": gender} | ({"age_band": band} if with_age else {})


def _columns(people: pd.DataFrame, units: NDArray[np.int64], times: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Return real attributes and times, and synthetic columns for the law with faults of real tables, drawn by user."""
    draws = np.stack([np.random.default_rng([1999, seed, int(u)]).random(5) for u in people.index])[units]
    collected = times.astype("datetime64[s]").astype("datetime64[D]")
    late = draws[:, 0] < 0.01
    return {
        "age": people.age.to_numpy(dtype=np.int64)[units],
        "gender": people.gender.to_numpy(dtype=object)[units],
        "occupation": people.occupation.to_numpy(dtype=object)[units],
        "collected": collected,
        "birth_year": SURVEY_YEAR - people.age.to_numpy(dtype=np.int64)[units],
        "guardian_consent": np.zeros(len(units), dtype=bool),
        "basis": np.select([draws[:, 1] < 0.93, draws[:, 1] < 0.98], ["consent", "contract"], ""),
        "consented": np.where(late, SNAPSHOT + 1, np.datetime64("1997-09-01", "D")),
        "used_from": np.full(len(units), SNAPSHOT),
        "purposes": np.where(draws[:, 2] < 0.97, "service model_training", "service"),
        "withdrawn": draws[:, 3] < 0.015,
        "storage_only": draws[:, 4] < 0.01,
        "retention_days": np.full(len(units), 730),
        "sensitive": np.zeros(len(units), dtype=bool),
        "sensitive_consent": np.zeros(len(units), dtype=bool),
    }
