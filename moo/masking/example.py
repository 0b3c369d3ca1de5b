"""Masking of texts as in the training of the model of this folder; it reads `preprocessing.json` there.

    python mask_texts.py < texts.txt > masked.txt

It needs moo-privacy in the version that the file names (no PyTorch, no network), and refuses a version that would mask
otherwise. In your own program: `load_preprocessing(folder).mask(text)`, then the base model's tokenizer with
`max_length`, then the model.
"""

import sys
from pathlib import Path

from moo.masking.preprocessing_card import load_preprocessing


def main() -> None:
    """Mask each line of standard input."""
    preprocessing = load_preprocessing(Path(__file__).resolve().parent)
    for line in sys.stdin:
        sys.stdout.write(preprocessing.mask(line.rstrip("\n")) + "\n")


if __name__ == "__main__":
    main()
