"""What operators, probes and programmers ask a replica: health, readiness, metrics, caches, documentation."""
