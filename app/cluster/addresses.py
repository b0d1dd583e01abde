"""Store addresses as they may be shown to a person."""

from urllib.parse import urlsplit


def without_password(url: str) -> str:
    """Return a store's URL with its password, if it has one, as `***`."""
    network_location = urlsplit(url).netloc
    credentials, at, hosts = network_location.rpartition("@")
    if not at:
        return url
    user = credentials.partition(":")[0]
    return url.replace(network_location, f"{user}:***@{hosts}", 1)
