"""Paying out what was approved: once, whatever dies and whatever the gateway does not say."""
