"""Replies of a shop's service desk in English: wholly synthetic, and declared so. No public set of real ones was found.

A reply names the customer and an order, describes the measure taken, and closes. A company would fine-tune a writer on
such texts, and a writer that learns by rote gives them away.
"""

import numpy as np

from moo.core.trial_record import Transformation
from moo.data.records import Records
from moo.data.synthetic import identifiers
from moo.data.synthetic.order_notes import draw_customer, pick

DECLARATION = (
    "Every reply, customer, consent and date is synthetic: sentences written for moo, names and numbers "
    "drawn at random."
)
SNAPSHOT = np.datetime64("2026-11-01", "D")
# replies in all
_N = 2000
_OPENINGS = ["Dear {name}, ", "Hello {name}, ", "Hi {name}, thank you for writing. "]
_CLOSINGS = ["Kind regards, the service team.", "Please tell us if anything is left open.", "Have a good day."]
_MATTERS = {
    "delivery": [
        "order {order} left our warehouse {days} days ago and should reach {city} this week. ",
        "we are sorry that order {order} has not arrived; we have asked the carrier to look for it. ",
        "your parcel is at the depot in {city}; we will try again in {days} days. ",
    ],
    "refund": [
        "we have sent back ${amount} for order {order}; your bank needs {days} days. ",
        "the returned item has arrived, and ${amount} is on its way to your card. ",
        "order {order} was charged twice by mistake; the second ${amount} will be with you in {days} days. ",
    ],
}


# nothing is fetched, so there is no progress to report
def load_replies(*, n_records: int = 0, seed: int = 0, progress: object = None) -> Records:  # noqa: ARG001
    """Return service replies, each by itself a record, with the matter as label.

    Args:
        n_records: Number of replies; 0 takes 2,000.
        seed: Seed of all draws; public.
        progress: Unused: nothing is downloaded.
    """
    n, rng = n_records or _N, np.random.default_rng([20_263, seed])
    matters = list(_MATTERS)
    labels = rng.integers(0, len(matters), n)
    people = [draw_customer(rng, "en") for _ in range(n)]
    texts = []
    for person, label in zip(people, labels, strict=True):
        body = "".join(pick(rng, part) for part in (_OPENINGS, _MATTERS[matters[label]], _CLOSINGS))
        texts.append(
            body.format(
                name=person.name,
                city=person.city,
                order=identifiers.digits(rng, 8),
                days=rng.integers(2, 9),
                amount=f"{rng.integers(5, 400)}.{rng.integers(0, 100):02d}",
            )
        )
    no = np.zeros(n, dtype=bool)
    return Records(
        name="service-reply",
        texts=tuple(texts),
        labels=labels.astype(np.int64),
        classes=tuple(matters),
        units=np.arange(n, dtype=np.int64),
        unit_ids=tuple(f"reply {i}" for i in range(n)),
        unit_name="record",
        language="en",
        gold=((),) * n,
        fields=tuple(p.fields for p in people),
        columns={
            "basis": np.full(n, "consent", dtype=object),
            "consented": np.full(n, SNAPSHOT - 700),
            "used_from": np.full(n, SNAPSHOT),
            "purposes": np.full(n, "service model_training", dtype=object),
            "withdrawn": rng.random(n) < 0.015,
            "storage_only": no,
            "collected": SNAPSHOT - rng.integers(30, 600, n),
            "retention_days": np.full(n, 730),
            "sensitive": no,
            "sensitive_consent": no,
            "birth_year": np.array([min(p.birth_year, 2005) for p in people]),
            "guardian_consent": no,
        },
        transformations=(Transformation(name="written", scope="record", detail="each reply drawn by itself"),),
        licence="written for moo",
        declaration=DECLARATION,
    )
