"""What an operator does to the whole installation: bring it up to date, fill it with a demo."""
