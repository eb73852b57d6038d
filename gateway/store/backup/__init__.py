"""Backups of a store: made while mail comes in, checked without the store, restored into any database.

A backup is a folder::

    manifest.json   what it is of, and a digest of everything in it; written last
    store.db        every row of every table, of one snapshot, as a SQLite database
    settings/       gateway.toml and certificates, and no private key or password

The rows are the same whatever database they come from, and go into either. Bodies stay sealed and keys wrapped: the
keys that they rest on are not in it, and the manifest says which they are.
"""
