"""Trunk cache: results, storage, and behaviour when something is torn, full or shared."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.core.errors import InputError
from moo.models.bank.feature_scaling import constants
from moo.models.pretrained.architectures import Cut
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk import cache as cache_module
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.constants import Constants
from moo.models.trunk.encode import Encoded, encode
from moo.models.trunk.segment_file import Entry, Segment, write_segment
from tests.fixtures.limits import files_of_at_most

TEXTS = ["abc", "defgh", "abc", "zz"]
GIB = 2**30


@pytest.fixture(scope="module")
def scaling(tiny: BaseModel) -> Constants:
    return constants(tiny, max_length=24)


def cache_at(folder: Path, tiny: BaseModel, key: bytes = b"k" * 32, limit_gib: float = 1.0) -> TrunkCache:
    return TrunkCache(folder, key, tiny, max_length=24, limit_gib=limit_gib)


def segments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


def test_cache_gives_what_the_trunk_gives_and_computes_each_text_once(
    tiny: BaseModel, scaling: Constants, tmp_path: Path
) -> None:
    done: list[int] = []
    packed = cache_at(tmp_path / "c", tiny).packed(TEXTS, scaling)
    again = cache_at(tmp_path / "c", tiny).packed([*TEXTS, "new"], scaling, progress=done.append)
    assert sum(done) == 5
    assert done[0] == 4  # all but the new one were there
    expected = encode(tiny, TEXTS, max_length=24)
    np.testing.assert_allclose(packed.features, scaling.features(expected.mean), atol=1e-6)
    np.testing.assert_allclose(packed.tokens, np.concatenate(expected.tokens), atol=2e-3)
    torch.testing.assert_close(again.take(np.arange(4)).tokens, packed.tokens)


def test_cached_and_fresh_activations_are_equal_bit_for_bit(
    tiny: BaseModel, scaling: Constants, tmp_path: Path
) -> None:
    fresh = cache_at(tmp_path / "none", tiny, limit_gib=0.0).packed(TEXTS, scaling)
    assert segments_of(tmp_path / "none") == []
    for _ in range(2):
        kept = cache_at(tmp_path / "c", tiny).packed(TEXTS, scaling)
        assert torch.equal(kept.tokens, fresh.tokens)
        assert torch.equal(kept.features, fresh.features)


def test_texts_over_the_limit_are_counted_cached_or_not(tiny: BaseModel, scaling: Constants, tmp_path: Path) -> None:
    texts = ["a" * 30, "b" * 21, "c" * 22, "d" * 23]  # with <s> and </s>: 32, 23, 24, 25 tokens of 24
    assert [cache_at(tmp_path / "c", tiny).packed(texts, scaling).truncated for _ in range(2)] == [2, 2]


def test_cache_folder_is_private_and_names_no_text(tiny: BaseModel, scaling: Constants, tmp_path: Path) -> None:
    cache_at(tmp_path / "c", tiny).packed(["secret text"], scaling)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "c").iterdir():
        assert file.stat().st_mode & 0o077 == 0
        assert b"secret" not in file.read_bytes()
    others = cache_at(tmp_path / "c", tiny, key=b"other" * 8)
    assert len(others) == 1
    assert others._digest("secret text") not in cache_at(tmp_path / "c", tiny)._at


@pytest.mark.parametrize("kept", [0, 5, 40, 150, -7, -1])
def test_a_torn_file_is_removed_said_and_computed_again(
    tiny: BaseModel, scaling: Constants, tmp_path: Path, kept: int
) -> None:
    whole = cache_at(tmp_path / "c", tiny).packed(TEXTS, scaling)
    (path,) = segments_of(tmp_path / "c")
    path.write_bytes(path.read_bytes()[:kept])
    cache = cache_at(tmp_path / "c", tiny)
    assert len(cache) == 0
    assert "damaged" in cache.notices[0]
    torch.testing.assert_close(cache.packed(TEXTS, scaling).tokens, whole.tokens)
    assert len(cache) == 3
    assert cache_at(tmp_path / "c", tiny).notices == []  # mended on disk


@pytest.mark.parametrize("place", [3, 20, 45, 250, -5])
def test_a_flipped_byte_is_found_said_and_computed_again(
    tiny: BaseModel, scaling: Constants, tmp_path: Path, place: int
) -> None:
    whole = cache_at(tmp_path / "c", tiny).packed(TEXTS, scaling)
    (path,) = segments_of(tmp_path / "c")
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x40
    path.write_bytes(bytes(raw))
    cache = cache_at(tmp_path / "c", tiny)
    torch.testing.assert_close(cache.packed(TEXTS, scaling).tokens, whole.tokens)
    assert len(cache.notices) == 1
    assert segments_of(tmp_path / "c") not in ([], [path])
    after = cache_at(tmp_path / "c", tiny)
    torch.testing.assert_close(after.packed(TEXTS, scaling).tokens, whole.tokens)
    assert after.notices == []


def test_where_nothing_can_be_written_texts_are_not_kept_and_that_is_said(
    tiny: BaseModel, scaling: Constants, tmp_path: Path
) -> None:
    whole = cache_at(tmp_path / "whole", tiny).packed(TEXTS, scaling)
    cache = cache_at(tmp_path / "c", tiny)
    with files_of_at_most(100):
        torch.testing.assert_close(cache.packed(TEXTS, scaling).tokens, whole.tokens)
    assert list((tmp_path / "c").iterdir()) == []
    assert "could not be written" in cache.notices[0]
    cache.packed(TEXTS, scaling)
    assert len(segments_of(tmp_path / "c")) == 1  # there is room again


def test_above_its_limit_the_cache_drops_what_was_used_longest_ago(
    tiny: BaseModel, scaling: Constants, tmp_path: Path
) -> None:
    groups = [[f"{a}{b}" for b in "abcdefgh"] for a in "xyz"]
    cache = cache_at(tmp_path / "c", tiny)
    for i, group in enumerate(groups[:2]):
        cache.packed(group, scaling)
        os.utime(segments_of(tmp_path / "c")[0], (i, i))
    each = cache.size / 2
    small = cache_at(tmp_path / "c", tiny, limit_gib=2.5 * each / GIB)
    small.packed(groups[0], scaling)  # used again: the second group is the older one now
    small.packed(groups[2], scaling)
    assert small.size <= 2.5 * each
    held = [sum(small._digest(t) in small._at for t in group) for group in groups]
    assert held == [8, 0, 8]
    assert small.notices == []
    small.packed([*groups[0], *groups[1], *groups[2]], scaling)  # more than fits: none that is read makes room
    assert small.size <= 2.5 * each
    assert "full at" in small.notices[0]


def test_a_limit_below_zero_is_refused(tiny: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit_gib"):
        cache_at(tmp_path, tiny, limit_gib=-1.0)


def test_a_segment_is_read_on_where_another_process_removed_it(
    tiny: BaseModel, scaling: Constants, tmp_path: Path
) -> None:
    cache = cache_at(tmp_path / "c", tiny)
    whole = cache.packed(TEXTS, scaling)
    segment, row = cache._at[cache._digest("abc")]
    for path in segments_of(tmp_path / "c"):
        path.unlink()
    entry = segment.read(row)
    assert entry is not None
    np.testing.assert_array_equal(entry.tokens, whole.take(np.array([0])).tokens.numpy())
    torch.testing.assert_close(cache.packed(TEXTS, scaling).tokens, whole.tokens)


def test_what_killed_writers_left_is_removed(tiny: BaseModel, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    old, new = folder / ".0.segment.17", folder / ".1.segment.18"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache_at(folder, tiny)
    assert [p.name for p in folder.iterdir()] == [new.name]


def test_two_depths_share_a_folder_and_never_each_others_activations(
    tiny: BaseModel, scaling: Constants, tmp_path: Path
) -> None:
    last = cache_at(tmp_path / "c", tiny)
    deeper = TrunkCache(tmp_path / "c", b"k" * 32, tiny, max_length=24, cut=Cut(1, 3))
    one, two = last.packed(TEXTS, scaling), deeper.packed(TEXTS, scaling)
    assert float((one.tokens - two.tokens).abs().max()) > 1e-2
    assert torch.equal(cache_at(tmp_path / "c", tiny).packed(TEXTS, scaling).tokens, one.tokens)


def test_processes_share_a_cache_without_waiting_and_agree(
    tiny_folder: Path, tiny: BaseModel, scaling: Constants, tmp_path: Path
) -> None:
    """Four forked processes write many small segments of the same texts."""
    script = textwrap.dedent(
        """
        import dataclasses, hashlib, os, sys
        from pathlib import Path
        from moo.models.trunk import cache
        from moo.models.pretrained.loading import load_base
        from moo.models.bank.feature_scaling import constants
        cache.TEXTS_A_SEGMENT = 3
        base = dataclasses.replace(load_base(sys.argv[1], accelerator="cpu"), low_precision=False)
        scaling = constants(base, max_length=24)
        children = []
        while len(children) < 4:
            child = os.fork()
            if child == 0:
                break
            children.append(child)
        else:
            sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
        texts = [a + b for a in "abcdef" for b in "ghijkl"]
        shared = cache.TrunkCache(Path(sys.argv[2]), b"k" * 32, base, max_length=24)
        packed = shared.packed(texts, scaling)
        digest = hashlib.sha256(packed.tokens.numpy().tobytes()).hexdigest()
        os.write(1, f"{digest} {len(shared.notices)}\\n".encode())
        """
    )
    command = [sys.executable, "-c", script, str(tiny_folder), str(tmp_path / "c")]
    calm = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    ran = subprocess.run(command, env=calm, capture_output=True, text=True, timeout=120, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == 4
    told = set(lines)
    assert len(told) == 1
    assert told.pop().endswith(" 0")
    texts = [a + b for a in "abcdef" for b in "ghijkl"]
    cache = cache_at(tmp_path / "c", tiny)
    assert len(cache) == len(texts)
    done: list[int] = []
    cache.packed(texts, scaling, progress=done.append)
    assert done[0] == len(texts)


def test_many_parts_give_what_one_part_gives(
    tiny: BaseModel, scaling: Constants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [a * n for a in "abcd" for n in range(1, 9)]
    one = cache_at(tmp_path / "one", tiny).packed(texts, scaling)
    monkeypatch.setattr(cache_module, "TEXTS_A_SEGMENT", 5)
    done: list[int] = []
    many = cache_at(tmp_path / "many", tiny).packed(texts, scaling, progress=done.append)
    assert sum(done) == len(texts)
    assert len(segments_of(tmp_path / "many")) == 7
    assert torch.equal(many.tokens, one.tokens)


@pytest.mark.parametrize("low", [False, True])
def test_activations_above_the_range_of_fp16_are_kept_to_its_precision(
    tiny: BaseModel, scaling: Constants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, low: bool
) -> None:
    """A channel of the first token is a thousand times above fp16's range, as in decoders."""
    run_trunk = encode

    def massive(*arguments: Any, **options: Any) -> Encoded:
        out = run_trunk(*arguments, **options)
        for tokens in out.tokens:
            tokens[0, 3] = -6.5e7
        return out

    monkeypatch.setattr(cache_module, "encode", massive)
    base = dataclasses.replace(tiny, low_precision=low)
    expected = torch.from_numpy(np.concatenate(massive(base, TEXTS, max_length=24).tokens))
    fresh = cache_at(tmp_path / "none", base, limit_gib=0.0).packed(TEXTS, scaling)
    for _ in range(2):  # computed, then read
        tokens = cache_at(tmp_path / "c", base).packed(TEXTS, scaling).tokens
        assert torch.equal(fresh.tokens, tokens)
        assert tokens.dtype == (torch.bfloat16 if low else torch.float32)
        # in bf16 the trunk itself rounds as the batch falls
        torch.testing.assert_close(
            tokens.float(), expected, rtol=2**-6 if low else 2**-11, atol=2**-5 if low else 2**-15
        )


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_a_segment_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    entries = [
        Entry(rng.normal(size=(n, 4)).astype(np.float16), rng.normal(size=8).astype(np.float32), bool(n % 2), n % 3)
        for n in lengths
    ]
    keys = [rng.bytes(32) for _ in lengths]
    path = tmp_path_factory.mktemp("s") / "0.segment"
    write_segment(path, keys, entries, width=4)
    segment = Segment(path, 4)
    assert segment.keys() == keys
    for i, entry in enumerate(entries):
        segment.release_pages()
        read = segment.read(i)
        assert read is not None
        np.testing.assert_array_equal(read.tokens, entry.tokens)
        np.testing.assert_array_equal(read.frozen, entry.frozen)
        assert (read.truncated, read.exponent) == (entry.truncated, entry.exponent)
    with pytest.raises(ValueError, match="width 5"):
        Segment(path, 5)
