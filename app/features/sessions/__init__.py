"""Application sessions over HTTP: what a user left off at, on whichever replica they come back."""
