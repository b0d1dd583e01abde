"""Bookings: drafts that can't be lost, bookings that can't be doubled, their price and their life."""
