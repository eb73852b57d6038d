"""The revisions that make the tables and bring them up to date, run by :mod:`gateway.store.upgrading` with alembic.

Each is a module of ``versions``: its number, the one before it, one line that says what it is for (the first of its
docstring, shown by ``store upgrade --dry-run``), the tables whose rows it rewrites (``REWRITES``), and ``upgrade()``.
There is no way back but a backup: a step down would have to take kept mail away.

Rules, because mail and its proofs outlive every release:

* A revision that was released never changes; a test holds its digest. It imports nothing of the gateway but
  :mod:`gateway.store.migrations.columns`, which never changes either.
* An append-only table keeps its name, its columns and what they say. A column that is added may be NULL and has no
  default: the digests of the audit log leave out what is NULL, so the rows of before keep theirs. Whoever runs a
  revision proves that on rows of every table, and undoes one that breaks it (:mod:`gateway.store.upgrade_proof`).
* Rows that a revision adds to an append-only table are inserted with a ``sa.Table`` whose ``info`` says
  ``"fact": True``: the event of the upgrade then answers for them, as for any row.
* A column that is added to ``audit_event`` itself is no part of what its hash covers until the canonical form gets a
  new version (:func:`gateway.core.audit.canonical_bytes`); the forms of before stay as they are.
* Guards (triggers) and rights are no part of a revision. They follow from the tables, and are made after the last one.
* No ``COMMIT``, no ``CREATE INDEX CONCURRENTLY``: all of an upgrade is one transaction.
"""
