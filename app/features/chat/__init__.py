"""Conversations with an assistant that survive the replica which answers; the same tools over MCP."""
