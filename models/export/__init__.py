"""Trained models in PEFT's format."""
