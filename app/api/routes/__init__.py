"""Routes, one file per resource. A route only translates between HTTP and the service."""
