"""Collect from gold queries what a database must hold so that they return rows: compared values, joins, NULLs.

Runs in the `prepare` stage. Only the metric sees the result; no prompt does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from components.data.text2sql.schema import Column, ForeignKey, Schema, Table, Value

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["with_query_values"]


def with_query_values(schema: Schema, queries: Iterable[str]) -> Schema:
    """Return the schema with literal pools, facts, nullable columns and joins seen in its gold queries.

    Args:
        schema: The declared schema.
        queries: Gold SQL over this database.
    """
    import sqlglot

    found = _Found(schema)
    for query in queries:
        found.read(sqlglot.parse_one(query, dialect="sqlite"))
    return found.schema()


class _Found:
    def __init__(self, schema: Schema) -> None:
        self.declared = schema
        self.literals: dict[tuple[str, str], set[Value]] = {}
        self.nullable: set[tuple[str, str]] = set()
        self.facts: dict[str, set[tuple[tuple[str, Value], ...]]] = {}
        self.joins: dict[frozenset[tuple[str, str]], None] = {}

    def read(self, query: exp.Expr) -> None:
        from sqlglot import exp

        names = {t.alias_or_name.lower(): t.name for t in query.find_all(exp.Table)}
        tables = {alias: self.declared.table(name) for alias, name in names.items()}
        known = {alias: table for alias, table in tables.items() if table is not None}
        comparisons = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like)
        for predicate in query.find_all(*comparisons):
            self._compare(predicate.left, predicate.right, known, pattern=isinstance(predicate, exp.Like))
        for between in query.find_all(exp.Between):
            for bound in (between.args["low"], between.args["high"]):
                self._compare(between.this, bound, known)
        for member in query.find_all(exp.In):
            for value in member.expressions:
                self._compare(member.this, value, known)
        for test in query.find_all(exp.Is):
            column = _resolve(test.this, known)
            if column and isinstance(test.expression, exp.Null):
                self.nullable.add(column)
        for where in query.find_all(exp.Where):
            self._read_facts(where.this, known)

    def _compare(self, left: exp.Expr, right: exp.Expr, known: dict[str, Table], pattern: bool = False) -> None:
        from sqlglot import exp

        if isinstance(left, exp.Count) or isinstance(right, exp.Subquery | exp.Select):
            return
        column = _resolve(left, known)
        if column is None:
            return
        other = _resolve(right, known) if isinstance(right, exp.Column) else None
        if other is not None:
            if isinstance(left, exp.Column) and other[0] != column[0]:
                self.joins[frozenset((column, other))] = None
            return
        value = _literal(right)
        if value is not None:
            values = _pattern_values(str(value)) if pattern else (value,)
            self.literals.setdefault(column, set()).update(values)

    def _read_facts(self, condition: exp.Expr, known: dict[str, Table]) -> None:
        """Keep the values that one row must hold at the same time: equalities joined by AND."""
        from sqlglot import exp

        together: dict[str, dict[str, Value]] = {}
        conjuncts = condition.flatten() if isinstance(condition, exp.And) else ()
        for conjunct in conjuncts:
            if not isinstance(conjunct, exp.EQ):
                continue
            column, value = _resolve(conjunct.left, known), _literal(conjunct.right)
            if column and value is not None and not _resolve(conjunct.right, known):
                together.setdefault(column[0], {})[column[1]] = value
        for table, values in together.items():
            if len(values) > 1:
                self.facts.setdefault(table, set()).add(tuple(sorted(values.items())))

    def schema(self) -> Schema:
        tables = []
        for table in self.declared.tables:
            columns = tuple(self._column(table, column) for column in table.columns)
            facts = tuple(sorted(self.facts.get(table.name, ()), key=repr))
            tables.append(replace(table, columns=columns, facts=facts))
        return replace(self.declared, tables=tuple(tables), foreign_keys=self._foreign_keys())

    def _column(self, table: Table, column: Column) -> Column:
        values = self.literals.get((table.name, column.name), set())
        ordered = sorted(values, key=lambda v: (isinstance(v, str), v))
        return replace(column, literals=tuple(ordered), nullable=(table.name, column.name) in self.nullable)

    def _foreign_keys(self) -> tuple[ForeignKey, ...]:
        """Add the joins that the declared foreign keys leave out, so that those joins return rows too."""
        keys = list(self.declared.foreign_keys)
        linked = {frozenset(((k.table, k.column), (k.parent_table, k.parent_column))) for k in keys}
        constrained = {(k.table, k.column) for k in keys}
        for join in self.joins:
            if join in linked or len(join) != 2:
                continue

            # the child is the side that is no primary key; between two keys, the table that points at more others
            def weight(side: tuple[str, str]) -> tuple[bool, int, tuple[str, str]]:
                table = self.declared.table(side[0])
                own_key = table is not None and table.primary_key == side[1]
                return (own_key, -sum(k.table == side[0] for k in self.declared.foreign_keys), side)

            child, parent = sorted(join, key=weight)
            if child not in constrained:
                keys.append(ForeignKey(*child, *parent))
                constrained.add(child)
        return tuple(keys)


def _resolve(expression: exp.Expr, known: dict[str, Table]) -> tuple[str, str] | None:
    """Return (table, column) as declared for a column or an aggregate over one; None for anything else."""
    from sqlglot import exp

    column = expression if isinstance(expression, exp.Column) else None
    if isinstance(expression, exp.AggFunc) and isinstance(expression.this, exp.Column):
        column = expression.this
    if column is None:
        return None
    owner = known.get(column.table.lower()) if column.table else None
    candidates = [owner] if owner else ([] if column.table else list(known.values()))
    for table in candidates:
        declared = table.column(column.name)
        if declared:
            return (table.name, declared.name)
    return None


def _literal(expression: exp.Expr) -> Value | None:
    """Return a constant's value; "text" in double quotes is a string to SQLite where no column has that name."""
    from sqlglot import exp

    if isinstance(expression, exp.Neg):
        inner = _literal(expression.this)
        return -inner if isinstance(inner, int | float) else None
    if isinstance(expression, exp.Literal):
        if expression.is_string:
            return str(expression.this)
        number = float(expression.this)
        return int(number) if number.is_integer() else number
    if isinstance(expression, exp.Column) and not expression.table and expression.this.quoted:
        return str(expression.name)
    return None


def _pattern_values(pattern: str) -> tuple[str, str]:
    """Return two texts that match a LIKE pattern: the bare one, and one with letters where `%` stands."""
    bare = pattern.replace("_", "e")
    return bare.replace("%", ""), bare.replace("%", "or")
