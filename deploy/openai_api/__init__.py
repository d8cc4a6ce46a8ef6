"""The OpenAI-compatible surface: request schema, errors, metrics, and the FastAPI app that joins them to an engine."""
