"""CargoFlow: identical replicas over shared state. The house is described in `README.md` and
`docs/decisions/`.
"""
