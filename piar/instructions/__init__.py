"""The guideline as rules: its file, edits of it, and the prompts that are made of it."""
