"""Masking by level, Chinese and English, each record read alone; measured against gold spans it never sees."""

from moo.masking.ladder import Found, apply, find_spans, mask, mask_many
from moo.masking.operators import Operators
from moo.masking.probe import probe

__all__ = ["Found", "Operators", "apply", "find_spans", "mask", "mask_many", "probe"]
