"""Masks texts as the texts were masked that this model was trained on. Stands beside `preprocessing.json`.

    python mask_texts.py < texts.txt > masked.txt

It needs moo-privacy in the version that the file names (no PyTorch, no network), and refuses another one that would mask otherwise.
In a program of your own: `load_preprocessing(folder).mask(text)`, then the base model's tokenizer with `max_length`, then the model.
"""

import sys
from pathlib import Path

from moo.masking.preprocessing_card import load_preprocessing


def main() -> None:
    preprocessing = load_preprocessing(Path(__file__).resolve().parent)
    for line in sys.stdin:
        sys.stdout.write(preprocessing.mask(line.rstrip("\n")) + "\n")


if __name__ == "__main__":
    main()
