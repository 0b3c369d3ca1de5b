"""Pretrained models: loaded from a name, a hub id or a folder."""
