"""Workers, which compute batches in processes or in a thread, and their messages with the service."""
