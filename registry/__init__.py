"""The source of truth for models: versions, blobs, aliases, gate, lineage. No torch."""
