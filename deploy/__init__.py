"""Serving: an OpenAI-compatible ASGI app, its engine, and the BentoML bundle round it."""
