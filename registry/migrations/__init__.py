"""Alembic's forward migrations, run by registry.database when a registry is made or is older than this release."""
