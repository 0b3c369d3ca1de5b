"""Exit statuses of the command other than 0 for done and those of `moo.core.errors`."""

FINDINGS = 4  # it ran, and there is something for a person to do
INTERRUPTED = 130
