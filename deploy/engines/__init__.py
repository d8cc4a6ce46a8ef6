"""Engines: what turns token ids into text behind the endpoint. The contract is in engine.py, one file an engine."""
