"""The bank: K shadow models trained side by side as one batch."""
