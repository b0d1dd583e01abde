"""A suggestion for an application: a scorecard of factors, each with its points and why."""
