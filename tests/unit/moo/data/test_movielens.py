"""MovieLens as two data sets: a made-up table in the same format, and the real archive where the network is."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from moo.core.errors import InputError
from moo.data.catalogue import DATASETS, load_records
from moo.data.legal.gates import RULES, Terms, consent_filter
from moo.data.records import Records
from moo.data.sources.movielens import (
    BAND_NAMES,
    CANDIDATES,
    DECLARATION,
    HISTORY,
    WINDOW,
    WINDOWS,
    Tables,
    profiling,
    read_tables,
    recommendation,
)
from moo.studies.accounting.account import ledger_of
from moo.studies.spec.study import load_spec

TITLES = (
    "Usual Suspects, The",
    "Postino, Il",
    "L.A. Story",
    "Seven (Se7en)",
    "Fish Called Wanda, A",
    "Misérables, Les",
    "unkonwn",
)


def save_movielens(folder: Path, *, n_users: int = 40, n_items: int = 60, seed: int = 0) -> tuple[Path, Path, Path]:
    """Three made-up files as RecBole writes MovieLens-100K, rows in no order.

    User 1 has rated too little for either data set.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(1, n_users + 1):
        n = 5 if user == 1 else int(rng.integers(HISTORY + 3, n_items))
        for item in rng.choice(n_items, size=n, replace=False) + 1:
            rows.append(f"{user}\t{item}\t{rng.integers(1, 6)}\t{880_000_000 + rng.integers(0, 9)}")
    rng.shuffle(rows)
    people = [f"{u}\t{rng.integers(7, 74)}\t{rng.choice(['M', 'F'])}\tother\t{u:05d}" for u in range(1, n_users + 1)]
    items = [
        f"{i}\t{TITLES[i - 1] if i <= len(TITLES) else f'Picture {i}'}\t{1950 + i if i > 1 else 'unkonwn'}\tDrama "
        f"Children's"
        for i in range(1, n_items + 1)
    ]
    heads = {
        "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
        "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
    }
    paths = []
    for (kind, head), lines in zip(heads.items(), (rows, people, items), strict=True):
        path = folder / f"ml-100k.{kind}"
        path.write_text("\n".join([head, *map(str, lines)]) + "\n", encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1], paths[2]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return read_tables(*save_movielens(tmp_path_factory.mktemp("movielens")))


def titles_told(taste: str) -> Counter[str]:
    """Titles of "Liked: a; b. Disliked: c."."""
    sides = taste.removesuffix(".").removeprefix("Liked: ").removeprefix("Disliked: ").split(". Disliked: ")
    return Counter(title for side in sides for title in side.split("; "))


def test_titles_are_written_as_people_write_them(tables: Tables) -> None:
    assert [tables.titles[i] for i in (1, 2, 4, 5, 6)] == [
        "The Usual Suspects",
        "Il Postino",
        "Seven",
        "A Fish Called Wanda",
        "Les Misérables",
    ]
    assert 7 not in tables.titles  # a title that the table does not know, nor its ratings
    assert 7 not in set(tables.ratings.item_id)
    assert (tables.years[1], tables.years[2]) == ("", "1952")  # what is not a number is not a year
    assert tables.genres[1] == "drama, children's"


def test_a_recommendation_asks_about_a_later_title_and_labels_it_by_its_stars(tables: Tables) -> None:
    records = recommendation(tables)
    frame = tables.ratings
    for text, label, unit in zip(records.texts, records.labels, records.units, strict=True):
        user = int(records.unit_ids[unit].rpartition(" ")[2])
        mine = frame[frame.user_id == user].reset_index(drop=True)
        asked, _, taste = text.partition("). ")
        title, _, about = asked.partition(" (")
        at = next(i for i in mine.index if tables.titles[int(mine.item_id[i])] == title)
        assert about.removeprefix(f"{tables.years[int(mine.item_id[at])]}, ") == "drama, children's"
        assert label == int(mine.rating[at] >= 4)
        assert titles_told(taste) == Counter(tables.titles[int(i)] for i in mine.item_id[at - HISTORY : at])
        assert list(mine.timestamp[at - HISTORY : at + 1]) == sorted(mine.timestamp[at - HISTORY : at + 1])
    assert np.bincount(records.units).max() <= CANDIDATES


def test_a_profile_window_holds_one_users_titles_and_the_label_is_the_users_own_band(tables: Tables) -> None:
    records = profiling(tables)
    assert records.classes == BAND_NAMES
    ages = records.columns["age"]
    assert np.array_equal(records.labels, (ages >= 30).astype(int))
    assert all(len(set(records.labels[records.units == u])) == 1 for u in range(records.n_units))
    assert max(Counter(records.units.tolist()).values()) <= WINDOWS
    assert {t.count(";") + t.count(": ") for t in records.texts} == {WINDOW}
    assert set(records.groups) == {"gender"}
    assert np.array_equal(records.groups["gender"] == 1, records.columns["gender"] == "F")


@pytest.mark.parametrize("make", [recommendation, profiling])
def test_a_users_records_depend_on_no_other_user(tables: Tables, make: Callable[[Tables], Records]) -> None:
    """What a scope of "user" claims: without half of the others, a user's texts, labels and columns are the same."""
    whole = make(tables)
    half = make(dataclasses.replace(tables, ratings=tables.ratings[tables.ratings.user_id % 2 == 0]))
    assert 1 < half.n_units < whole.n_units
    for unit, name in enumerate(half.unit_ids):
        here, there = half.units == unit, whole.units == whole.unit_ids.index(name)
        assert list(np.array(half.texts)[here]) == list(np.array(whole.texts)[there])
        assert np.array_equal(half.labels[here], whole.labels[there])
        for column in half.columns:
            assert np.array_equal(half.columns[column][here], whole.columns[column][there]), column
    assert {t.scope for t in whole.transformations} == {"user"}


def test_users_with_too_few_ratings_are_left_out_and_none_at_all_is_refused(tables: Tables) -> None:
    assert "movielens user 1" not in recommendation(tables).unit_ids
    one = Tables(
        ratings=tables.ratings[tables.ratings.user_id == 1], users=tables.users, titles={}, years={}, genres={}
    )
    with pytest.raises(InputError, match="must have rated 12 titles or more"):
        profiling(one)


def test_the_columns_of_law_are_all_there_and_children_without_a_guardian_are_dropped(tables: Tables) -> None:
    records = recommendation(tables)
    asked = {
        c for name, (needed, _) in RULES.items() for c in needed if name != "illegal_tags"
    }  # no legal set is declared
    assert asked <= set(records.columns)
    assert "synthetic" in records.declaration
    assert records.declaration == DECLARATION
    spec = load_spec("recommendation")
    kept, report = consent_filter(records, Terms(purpose=spec.purpose, as_of=date.fromisoformat(spec.as_of)))
    assert kept.columns["age"].min() > 14
    assert report.dropped["minors_without_guardian"] > 0
    assert report.dropped["over_retention"] == 0


def test_fewer_records_are_whole_users_of_the_same_order(tables: Tables) -> None:
    few, whole = recommendation(tables, n_records=50), recommendation(tables)
    assert len(few) >= 50
    assert few.texts == whole.texts[: len(few)]
    assert few.units[-1] < whole.units[len(few)]
    assert [(t.name, t.frozen) for t in few.transformations] == [("windows", False), ("first_units", True)]
    assert [t.name for t in recommendation(tables, n_records=len(whole)).transformations] == ["windows"]


def test_both_data_sets_share_the_ledger_of_their_people() -> None:
    assert ledger_of("recommendation").path == ledger_of("profiling").path
    assert ledger_of("recommendation").path != ledger_of("reviews").path
    assert DATASETS["recommendation"].archive is DATASETS["profiling"].archive


@pytest.mark.slow
def test_the_real_archive_gives_943_users_and_their_shares() -> None:
    liked, bands = load_records("recommendation"), load_records("profiling")
    assert (len(liked), liked.n_units) == (7544, 943)
    assert (len(bands), bands.n_units) == (3541, 943)
    assert liked.labels.mean() == pytest.approx(0.58, abs=0.01)
    assert Counter(bands.columns["gender"][np.unique(bands.units, return_index=True)[1]]) == {"M": 670, "F": 273}
    assert not any("unkonwn" in t or ", The;" in t for t in (*liked.texts, *bands.texts))
