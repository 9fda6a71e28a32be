"""How quick the service is, beside what the machine could do and beside its peers; results in docs/benchmarks.md."""
