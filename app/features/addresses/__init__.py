"""A user's address book, and what an address is wherever one is given."""
