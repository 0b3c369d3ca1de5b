"""Commands of `moo`, one file a group."""
