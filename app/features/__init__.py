"""One folder a feature: routes translate HTTP, the service holds the rules, the store holds the queries."""
