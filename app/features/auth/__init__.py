"""Who you are: registering, logging in and out, refresh, passwords, devices, API keys."""
