"""Rows and everything that is done to them before a model sees them."""
