"""Workflows on a finished study: confirm, retrain, audit, memorise, monitor."""
