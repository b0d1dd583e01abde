"""The pure part: settings, errors, clock, ids, logging, metrics. No I/O and no framework."""
