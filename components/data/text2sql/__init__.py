"""The text-to-SQL data: fetch -> prepare -> split as DVC stages, and the seeded databases that its metric runs on."""
