"""The loop: search loosely, test once, promote strictly."""
