"""Legal facts of the data: gates, declarations and the dossier."""
