"""Commands that attack or audit models and report what leaks, one file a command."""
