"""Studies in the Optuna dashboard: moo's figures, and a note under every trial."""

from moo.dashboard.serve import publish, serve

__all__ = ["publish", "serve"]
