"""The databases' own rules as migrations write them, one meaning in two dialects.

Released migrations use them, so what they make may not change.

On PostgreSQL the triggers are ALWAYS ones (a replica's role doesn't silence them), and their functions look tables up
in the registry's schema alone, so that a temporary table of the same name deceives none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["insert_only", "insert_rule", "only_forward", "prepare_rules", "string"]


def only_forward() -> None:
    """Refuse to go back: what every migration has as its `downgrade`."""
    raise NotImplementedError("a registry's schema only goes forward; restore a copy of the folder instead")


def string(length: int) -> sa.types.TypeEngine[str]:
    """Return a text column's type; PostgreSQL, too, sorts it by code points, whatever the server's locale."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def prepare_rules() -> None:
    """Make what the rules of later calls rest on, once a database."""
    if _on_postgres():
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION '% is insert-only', TG_TABLE_NAME; END $$"
        )


def insert_only(table: str, taken: str) -> None:
    """Refuse every client to change or remove a row.

    Args:
        table: The table.
        taken: What makes NEW a second row on a key: SQLite's INSERT OR REPLACE deletes without firing delete triggers,
            so it is refused before that. PostgreSQL's ON CONFLICT DO UPDATE is an update.
    """
    if _on_postgres():
        # by statement, so that TRUNCATE is met, and a change that finds no row, too
        op.execute(
            f"CREATE TRIGGER {table}_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_insert_only")
        return
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is insert-only'); END"
        )
    insert_rule(
        table,
        "no_replace",
        f"EXISTS (SELECT 1 FROM {table} WHERE {taken})",
        f"{table} is insert-only: this key is taken",
    )


def insert_rule(table: str, name: str, broken: str, message: str) -> None:
    """Refuse rows that break a rule.

    Args:
        table: The table.
        name: Of the rule, within the table.
        broken: The condition on NEW under which a row is refused.
        message: What the client is told.
    """
    if not _on_postgres():
        broken = broken.replace("IS DISTINCT FROM", "IS NOT")  # SQLite has the words from 3.39 on
        op.execute(
            f"CREATE TRIGGER {table}_{name} BEFORE INSERT ON {table} WHEN {broken} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )
        return
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    op.execute(
        f"CREATE FUNCTION {table}_{name}() RETURNS trigger LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS "
        f"$$ BEGIN IF {broken} THEN RAISE EXCEPTION '{message}'; END IF; RETURN NEW; END $$"
    )
    op.execute(f"CREATE TRIGGER {table}_{name} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_{name}()")
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_{name}")


def _on_postgres() -> bool:
    return op.get_bind().dialect.name == "postgresql"
