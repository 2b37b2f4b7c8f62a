"""Test your labelling guideline like code, then ship a small model that grades in one token."""
