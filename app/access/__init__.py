"""Which requests are permitted: API keys, scopes, rate limits."""
