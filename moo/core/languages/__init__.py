"""Catalogues of messages, one folder a language: English template = template in that language."""
