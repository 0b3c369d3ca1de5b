"""Masking by level, of Chinese and English, each record read alone; measured against gold spans it never sees."""

from moo.masking.evaluation.probe import probe
from moo.masking.ladder import Found, apply, find_spans, mask, mask_many
from moo.masking.replacements import Operators

__all__ = ["Found", "Operators", "apply", "find_spans", "mask", "mask_many", "probe"]
