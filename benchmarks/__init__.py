"""Speed and memory of the service compared with the machine's limit and with its peers; results in docs/benchmarks.md."""
