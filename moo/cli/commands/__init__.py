"""Commands of `moo`, one file a command."""
