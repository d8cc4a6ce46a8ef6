"""Where a registry's parts lie in its folder, and which schema this release reads. Imports nothing, for speed.

<registry>/registry.db                     versions, aliases, evaluations, runs, audit, outbox (SQLite)
<registry>/database.json                   or: which PostgreSQL database has them, and this registry's id in it
<registry>/blobs/sha256/ab/abcdef...       file contents, each named by its sha256
<registry>/blobs.json                      or: where in S3 they are, beside this registry's id (registry.json)
<registry>/checkouts/<version digest>/...  verified folders of a version's files, made on demand
<registry>/signatures/<version digest>/... envelopes by key id, kept as they were written
<registry>/writers.lock                    the line of SQLite's writers: locks on an empty file
<registry>/mirrors/<id>.json               how far a mirror has been told
<registry>/uploads/<sha256>.part           what came of a content that a client sends
<registry>/leases/<id>                     what a writer is about to need, so that a collection leaves it alone
"""

from __future__ import annotations

__all__ = [
    "BINDING",
    "BLOBS",
    "BLOBS_PLACE",
    "CHECKOUTS",
    "DATABASE",
    "LEASES",
    "READABLE_REVISIONS",
    "SCHEMA_REVISION",
    "SIGNATURES",
    "UPLOADS",
    "WRITERS",
]

DATABASE = "registry.db"
BINDING = "database.json"
BLOBS = "blobs"
BLOBS_PLACE = "blobs.json"
CHECKOUTS = "checkouts"
LEASES = "leases"
SIGNATURES = "signatures"
UPLOADS = "uploads"
WRITERS = "writers.lock"
# The newest revision in migrations/versions; a test holds the two together.
SCHEMA_REVISION = "0005"
# Those whose tables a look-up can read; what writes brings a registry to the newest.
READABLE_REVISIONS = ("0001", "0002", "0003", "0004", SCHEMA_REVISION)
