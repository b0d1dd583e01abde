"""Shared state, one primitive a file: the only code that speaks MongoDB and Redis clients.

Every module's docstring says what its primitive guarantees, what it does not, and what happens when a store
is gone.
"""
