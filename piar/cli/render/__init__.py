"""How answers of verbs are shown on a terminal."""
