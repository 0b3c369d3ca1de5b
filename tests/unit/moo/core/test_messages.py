"""Messages travel as JSON and are rendered in any language, whatever they are made of."""

import copy
import json
import math
import pickle

import numpy as np

from moo.core.messages import Message, from_json, joined, messages_in, pack, render, restore, to_json, unpack

COUNTS = Message("{n:,} of {total:,} records", n=3, total=1200)


def test_a_message_is_its_english_text_and_is_rendered_from_its_template() -> None:
    assert COUNTS == "3 of 1,200 records"
    assert render(COUNTS, "zh") == "1,200 条记录中的 3 条"
    assert render(joined("; ", [COUNTS, "near_duplicates"]), "zh") == "1,200 条记录中的 3 条；近似重复剔除"
    assert render("nothing knows_this", "zh") == "nothing knows_this"


def test_a_message_survives_json_pickle_and_copies() -> None:
    limit = Message("{name} {weight:g}", name=COUNTS, weight=math.inf)
    for other in (
        from_json(json.loads(json.dumps(to_json(limit)))),
        pickle.loads(pickle.dumps(limit)),
        copy.deepcopy(limit),
    ):
        assert isinstance(other, Message)
        assert (other, other.template, other.values) == (limit, limit.template, limit.values)
        assert render(other, "zh") == "1,200 条记录中的 3 条 inf"


def test_numbers_of_numpy_keep_their_format() -> None:
    counted = Message("{n:,} of {total:,} records", n=np.int64(1500), total=np.int64(9000))
    assert from_json(json.loads(json.dumps(to_json(counted)))) == "1,500 of 9,000 records"


def test_content_is_packed_and_unpacked_at_any_depth() -> None:
    content = {"note": COUNTS, "rows": [{"claim": "holds"}, (COUNTS, 1.5, None)], "n": 3}
    plain = json.loads(json.dumps(content))
    assert plain == {"note": str(COUNTS), "rows": [{"claim": "holds"}, [str(COUNTS), 1.5, None]], "n": 3}
    kept = unpack(json.loads(json.dumps(pack(content))))
    assert kept == plain
    assert messages_in(kept) == {str(COUNTS): COUNTS}
    assert unpack(plain) == plain
    again = restore(plain, messages_in(content))
    assert again == plain
    assert isinstance(again["rows"][1][0], Message)
