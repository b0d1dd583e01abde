"""Who owes what: double entry, two-phase holds, and a hash chain that proves it."""
