"""The scenarios, one a file, found by their names."""
