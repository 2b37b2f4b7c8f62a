"""Structured data synthesis: fill thin cells, screen what was made."""
