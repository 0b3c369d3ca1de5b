"""Specification of a study: data, model, space, limits, schedule, runtime settings."""
