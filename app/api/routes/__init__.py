"""One file per resource; a route translates between HTTP and the service, and does nothing else."""
