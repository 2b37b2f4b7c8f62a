"""One project is one folder; its verbs are methods of `Project`."""
