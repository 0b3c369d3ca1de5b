"""Script `load.py` of an export, which loads the model without moo."""

from collections.abc import Sequence
from pathlib import Path

from moo.core.atomic_files import write_whole
from moo.models.bank.bank import Frozen

_LOADER = '''"""The model without moo: print the class and logits of each text.

    python load.py TEXT [TEXT ...] [--base FOLDER_OR_NAME]

--base names the base model and its tokenizer, if they are not at the place that adapter_config.json names.
Needs transformers and peft.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

CLASSES = {names!r}
PAD = {pad}


def load(base=None):
    """Return model and tokenizer."""
    here = Path(__file__).parent
    base = base or PeftConfig.from_pretrained(here).base_model_name_or_path
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels={n}, id2label=CLASSES)
    model.config.pad_token_id = PAD
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="right")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(PAD)
    return PeftModel.from_pretrained(model, here).eval(), tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--base")
    options = parser.parse_args()
    model, tokenizer = load(options.base)
    batch = tokenizer(options.texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for row in logits:
        print(json.dumps([CLASSES[int(row.argmax())], row.tolist()], ensure_ascii=False))
'''


def save_loader(frozen: Frozen, folder: Path, classes: Sequence[str]) -> None:
    """Write `load.py`, which adds classes and padding token to PEFT's files."""
    names, pad = dict(enumerate(classes)), int(frozen.base.tokenizer.pad_token_id)
    write_whole(folder / "load.py", _LOADER.format(names=names, n=len(names), pad=pad))
