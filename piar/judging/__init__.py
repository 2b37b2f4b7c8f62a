"""One way to ask a teacher about samples, and to keep what it says."""
