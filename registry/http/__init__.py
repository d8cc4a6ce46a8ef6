"""The registry over HTTP: server, tokens, client, webhooks. The only part of `registry` that knows of servers."""
