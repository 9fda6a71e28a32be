"""HTTP: the server, middleware, request bodies and routes."""
