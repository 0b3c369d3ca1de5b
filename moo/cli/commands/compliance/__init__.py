"""Commands of `moo compliance`, one file a command."""
