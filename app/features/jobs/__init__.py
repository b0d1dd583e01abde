"""Jobs as users and admins see them: how one stands, how the queues stand, retry, pause and resume."""
