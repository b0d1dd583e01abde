"""An operator's own people and settings: users and the tenant."""
