"""Alembic's entry: migrate on the connection that registry.database hands over, inside its one transaction."""

from __future__ import annotations

from alembic import context

from registry.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can undo DDL; without this Alembic commits step by step, and a crash leaves half a schema.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
