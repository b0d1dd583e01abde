"""The limits of the clusters that the acceptance tests share."""

from tests.cluster.counts import full

LIMITED = full(300, 30)
"""How many requests an hour are allowed where a limit is meant to bite."""

GENEROUS = {
    "LIMIT_AUTH": "1000000/minute",
    "LIMIT_AUTH_EMAIL": "1000000/minute",
    "LIMIT_ANONYMOUS": "1000000/minute",
    "LIMIT_STANDARD": "1000000/minute",
    "LIMIT_BOOKING": "1000000/hour",
    "LIMIT_ADDRESS": "1000000/hour",
    "LIMIT_PREMIUM": f"{LIMITED}/hour",
}
"""Nothing bites but the tier `premium`, which only an API key that asks for it has."""

STRICT = {"LIMIT_STANDARD": f"{LIMITED}/hour", "LIMIT_ANONYMOUS": f"{LIMITED}/hour"}
