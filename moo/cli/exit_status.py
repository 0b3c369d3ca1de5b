"""Exit statuses of the command, besides 0 for done and those of the errors (2 bad input, 3 environment)."""

FINDINGS = 4  # it ran, and there is something for a person to do
INTERRUPTED = 130
