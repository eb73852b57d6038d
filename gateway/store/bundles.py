"""Trust bundles: settings and versions are append-only, the newest counts; the status is the mutable part.

Anchors are kept among the certificates of the evidence, by digest, so that a hundred versions of a bundle hold
each certificate once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.trust import AnchorBundle, BundleRecord, BundleSetting, BundleStatus, BundleVersion, Direction
from gateway.store.blobs import checked, keep, sha256_hex
from gateway.store.tables import bundle_anchor, bundle_setting, bundle_status, bundle_version, certificate


class Bundles:
    """See :class:`gateway.ports.BundleRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- settings ---

    def set(self, setting: BundleSetting, at: datetime) -> None:
        """Append a setting of that name."""
        newest = self._connection.scalar(
            select(func.max(bundle_setting.c.seq)).where(bundle_setting.c.name == setting.name)
        )
        self._connection.execute(
            insert(bundle_setting).values(
                name=setting.name,
                seq=(newest or 0) + 1,
                at=at,
                location=setting.location,
                signer=setting.signer,
                owners=json.dumps(setting.owners),
                directions=" ".join(sorted(setting.directions)),
                refresh_hours=setting.refresh_hours,
                enabled=setting.enabled,
            )
        )

    def settings(self) -> list[BundleSetting]:
        """The newest setting of each bundle, by name; disabled ones too."""
        rows = self._connection.execute(select(bundle_setting).order_by(bundle_setting.c.name, bundle_setting.c.seq))
        return list({row.name: _setting(row) for row in rows}.values())

    # --- versions ---

    def add_version(self, name: str, at: datetime, source: bytes, anchors: Sequence[bytes]) -> BundleVersion:
        """Keep a content as the next version: the file as it came, and the DER of its accepted anchors.

        Raises:
            ConflictError: a certificate is there twice.
        """
        digests = {sha256_hex(der): der for der in anchors}
        if len(digests) != len(anchors):
            raise ConflictError("a bundle holds each anchor once")
        version = (self._newest_number(name) or 0) + 1
        sha256 = sha256_hex(source)
        self._connection.execute(
            insert(bundle_version).values(name=name, version=version, at=at, sha256=sha256, source=source)
        )
        keep(self._connection, certificate, digests)
        if digests:
            self._connection.execute(
                insert(bundle_anchor),
                [
                    {"name": name, "version": version, "position": position, "certificate_sha256": digest}
                    for position, digest in enumerate(digests)
                ],
            )
        return BundleVersion(name, version, at, sha256, tuple(anchors))

    def newest_version(self, name: str) -> BundleVersion | None:
        number = self._newest_number(name)
        return None if number is None else self._versions(name, number)[0]

    def versions(self, name: str) -> list[BundleVersion]:
        """Every version, oldest first."""
        return self._versions(name)

    def history(self, name: str) -> list[BundleRecord]:
        """Every version without what it holds, oldest first."""
        table, member = bundle_version, bundle_anchor
        held = (
            select(member.c.version, func.count().label("anchors"))
            .where(member.c.name == name)
            .group_by(member.c.version)
        )
        counts = {row.version: row.anchors for row in self._connection.execute(held)}
        query = (
            select(table.c.version, table.c.at, table.c.sha256).where(table.c.name == name).order_by(table.c.version)
        )
        return [
            BundleRecord(row.version, row.at, row.sha256, counts.get(row.version, 0))
            for row in self._connection.execute(query)
        ]

    def digests(self, name: str) -> list[str]:
        """SHA-256 of the file of every version, oldest first."""
        table = bundle_version
        query = select(table.c.sha256).where(table.c.name == name).order_by(table.c.version)
        return list(self._connection.scalars(query))

    def source(self, name: str, version: int) -> bytes:
        """The file of a version as it came. Raises NotFoundError."""
        table = bundle_version
        found = self._connection.scalar(select(table.c.source).where(table.c.name == name, table.c.version == version))
        if found is None:
            raise NotFoundError("there is no such version of a trust bundle")
        return bytes(found)

    def in_force(self) -> list[AnchorBundle]:
        """The newest version of each enabled bundle."""
        found = []
        for setting in self.settings():
            version = self.newest_version(setting.name) if setting.enabled else None
            if version is not None:
                found.append(
                    AnchorBundle(setting.name, version.version, setting.owners, setting.directions, version.anchors)
                )
        return found

    def revision(self) -> int:
        """A number that grows with each setting and each version: whoever saw it need not look again."""
        # Both tables only ever grow, and the counts come from the indexes of their keys.
        counts = (
            self._connection.scalar(select(func.count()).select_from(table))
            for table in (bundle_setting, bundle_version)
        )
        return sum(count or 0 for count in counts)

    # --- status ---

    def status(self, name: str) -> BundleStatus:
        row = self._connection.execute(select(bundle_status).where(bundle_status.c.name == name)).first()
        if row is None:
            return BundleStatus(name)
        return BundleStatus(row.name, row.last_attempt, row.last_success, row.error, row.alarm)

    def set_status(self, status: BundleStatus) -> None:
        values = {
            "last_attempt": status.last_attempt,
            "last_success": status.last_success,
            "error": status.error,
            "alarm": status.alarm,
        }
        changed = self._connection.execute(
            update(bundle_status).where(bundle_status.c.name == status.name).values(values)
        )
        if not changed.rowcount:
            self._connection.execute(insert(bundle_status).values({"name": status.name, **values}))

    # --- inside ---

    def _newest_number(self, name: str) -> int | None:
        query = select(func.max(bundle_version.c.version)).where(bundle_version.c.name == name)
        number: int | None = self._connection.scalar(query)
        return number

    def _versions(self, name: str, only: int | None = None) -> list[BundleVersion]:
        table = bundle_version
        query = select(table.c.version, table.c.at, table.c.sha256).where(table.c.name == name)
        members = (
            select(bundle_anchor.c.version, certificate.c.sha256, certificate.c.der)
            .join(certificate, certificate.c.sha256 == bundle_anchor.c.certificate_sha256)
            .where(bundle_anchor.c.name == name)
        )
        if only is not None:
            query = query.where(table.c.version == only)
            members = members.where(bundle_anchor.c.version == only)
        anchors: dict[int, list[bytes]] = {}
        for row in self._connection.execute(members.order_by(bundle_anchor.c.version, bundle_anchor.c.position)):
            der = checked(certificate, row.sha256, bytes(row.der))
            anchors.setdefault(row.version, []).append(der)
        return [
            BundleVersion(name, row.version, row.at, row.sha256, tuple(anchors.get(row.version, ())))
            for row in self._connection.execute(query.order_by(table.c.version))
        ]


def _setting(row: Row[Any]) -> BundleSetting:
    return BundleSetting(
        name=row.name,
        location=row.location,
        signer=None if row.signer is None else bytes(row.signer),
        owners=tuple(json.loads(row.owners)),
        directions=frozenset(Direction(word) for word in row.directions.split()),
        refresh_hours=row.refresh_hours,
        enabled=row.enabled,
    )
