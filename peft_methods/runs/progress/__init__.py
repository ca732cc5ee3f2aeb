"""Progress of a session: finished runs, running ones, and the time left."""
