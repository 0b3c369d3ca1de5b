"""Rule packs: data files, one law or policy each."""
