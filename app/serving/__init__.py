"""From a parsed request to a result, without HTTP: models, queues, admission, the cache of embeddings."""
