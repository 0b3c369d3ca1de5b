"""Types of personal information, with the masking level that first covers each.

One table for the masker, the synthetic customer layer and the compliance rules, so that they speak
of the same things. Source of the ladder: GB/T 35273-2020 annexes A and B for the kinds, GB/T
37964-2019 for direct and quasi identifiers.
"""

MAX_LEVEL = 5

ENTITY_LEVELS: dict[str, int] = {
    # L1: direct identifiers that carry their own structure
    "resident_id": 1,
    "mobile": 1,
    "landline": 1,
    "bank_card": 1,
    "email": 1,
    "wechat": 1,
    "qq": 1,
    "plate": 1,
    "passport": 1,
    "order_number": 1,
    "tracking_number": 1,
    "ip": 1,
    "device_id": 1,
    "url": 1,
    # L2: direct identifiers that need context
    "name": 2,
    "user_name": 2,
    "address": 2,
    # L3: quasi identifiers, generalised to fixed public bins
    "age": 3,
    "date": 3,
    "amount": 3,
    "city": 3,
    "postcode": 3,
    # L4: sensitive personal information
    "health": 4,
    "religion": 4,
    "biometric": 4,
    "finance": 4,
    "precise_location": 4,
    "minor": 4,
    # L5: words outside a public vocabulary, and all digits
    "rare": 5,
    "digits": 5,
}

DIRECT = frozenset(t for t, level in ENTITY_LEVELS.items() if level <= 2)
QUASI = frozenset(t for t, level in ENTITY_LEVELS.items() if level == 3)
SENSITIVE = frozenset(t for t, level in ENTITY_LEVELS.items() if level == 4)
