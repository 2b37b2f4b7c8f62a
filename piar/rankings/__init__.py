"""Rankings compared: run files, judged by labels of the store, with intervals over queries."""
