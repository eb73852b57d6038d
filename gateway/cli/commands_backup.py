"""``backup create``, ``verify`` and ``restore``: the command around :mod:`gateway.store.backup`.

Who makes a backup is in the audit log before the first row leaves the store (``backup.begun``), with the digest of the
manifest afterwards (``backup.created``); the restored log goes on with ``store.restored``. Status 1: the backup does
not hold, and nothing was restored.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import gateway
from gateway.cli import backup_report
from gateway.cli.audit_verify import known_keys, read_head, signature_check
from gateway.cli.backup_progress import Progress
from gateway.cli.output import warn
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, audit, settings_of, with_services
from gateway.core.errors import ConfigurationError, GatewayError, InputError
from gateway.core.tree_head import TreeHead
from gateway.settings import (
    CONFIG_VARIABLE,
    DEFAULT_CONFIG_PATHS,
    POSTGRESQL_PREFIXES,
    Settings,
    StoreSettings,
    find_config,
)

if TYPE_CHECKING:
    from gateway.ports import BodySealer
    from gateway.services import Services
    from gateway.store.backup.checking import BackupReport, Checks
    from gateway.store.backup.making import Made
    from gateway.store.s3_bodies import S3Bodies

_SHARES = {"none": 0.0, "some": 0.01, "all": 1.0}


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("backup", "make, check and restore backups of the whole store")
    create = group.add(
        "create",
        "make a backup while mail comes in",
        "Every row of one moment, with the wrapped keys, the head of the audit log, gateway.toml and certificates, in\n"
        "a folder of its own. The gateway may run; no mail waits. It is read again from the disk before it gets its\n"
        "name, and a backup that was interrupted never has one.\n"
        "PATH is the backup to make, or a folder that is there, where it gets the time as its name. With a slash at\n"
        "its end (/media/backup/) it is that folder: when it is not there, nothing is written.\n"
        "Not in it: the keys of stored bodies and all other private keys and passwords (the output names them), and\n"
        "bodies that lie in a bucket. Keep the keys apart from the backup: docs/backup.md.",
        "backup create /media/backup/\nbackup create /media/backup/before-upgrade --json",
        run=_create,
    )
    create.add_argument("path", metavar="PATH", help="the backup, or the folder it goes into")
    create.add_argument("--json", action="store_true", help="print the result as JSON, and no progress")
    verify = group.add(
        "verify",
        "read a backup again and check everything in it",
        "Every file against its digest, every table, the whole audit log with every row that it answers for, and its\n"
        "head. Where the keys are at hand, bodies are opened and compared: one in a hundred, or --bodies all.\n"
        "It needs neither the store nor settings, and changes nothing. Status 1 when anything does not hold.",
        "backup verify /media/backup/gateway-20260301T031500Z\n"
        "backup verify PATH --bodies all --against HEAD.json --public-key heads.pub.pem",
        run=_verify,
    )
    _checking_options(verify)
    verify.add_argument("--bucket", action="store_true", help="see that the bodies in the bucket of [s3] are there")
    restore = group.add(
        "restore",
        "put a backup into the empty store of the settings",
        "First put gateway.toml, certificates and keys back (from PATH/settings; the keys from your safe). Then this\n"
        "fills the store of those settings, SQLite or PostgreSQL, whatever the backup was made from. The store\n"
        "must be empty and no gateway may run. The backup is verified first; the store is there whole or not at all;\n"
        "interrupted, run it again. With --dry-run it says what it would do, and writes nothing.\n"
        "Mail clients keep what they have: UIDs that were given out after the backup are not used again.",
        "backup restore PATH --dry-run\nbackup restore PATH --against /media/safe/head.json",
        run=_restore,
    )
    _checking_options(restore)
    restore.add_argument("--dry-run", action="store_true", help="check everything, say what would be done, do nothing")


def _checking_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="the backup: the folder with manifest.json")
    parser.add_argument(
        "--against", metavar="HEAD.json", type=Path, action="append", default=[], help="a head that was kept elsewhere"
    )
    parser.add_argument("--manifest-sha256", metavar="HEX", help="digest of the manifest, as backup create told it")
    parser.add_argument(
        "--public-key", metavar="FILE", type=Path, action="append", default=[], help="who signed (default: our own key)"
    )
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="keys of bodies (default: those of the settings)")
    parser.add_argument(
        "--bodies", choices=sorted(_SHARES), default="some", help="open no body, some (1 in 100, at least 100), or all"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and no progress")


# --- create ---


def _create(args: argparse.Namespace) -> int:
    from gateway.cli.backup_settings import settings_files  # noqa: PLC0415 - see gateway.cli.session
    from gateway.observability.clock import SystemClock  # noqa: PLC0415 - the same
    from gateway.store.backup.making import Contents, make_backup  # noqa: PLC0415 - the same

    settings, config = settings_of(args), find_config(args.config)
    clock = SystemClock()
    target = _target(args.path, clock.now())
    with_services(args, _begin)
    files, left_out = settings_files(settings, config)
    contents = Contents(gateway.__version__, files, left_out)
    made = make_backup(settings.store, target, contents, clock=clock.now, tell=Progress(shown=not args.json))
    try:
        with_services(args, lambda services: _record(services, made))
    except GatewayError as exc:
        raise type(exc)(f"the backup {made.path} is complete, but that could not be written down: {exc}") from exc
    keys_here = _ids_at_hand(settings)
    backup_report.print_made(made, keys_here, json=args.json)
    if _on_the_disk_of(settings.store, made.path):
        warn("it lies on the disk of the store, and dies with it: is the medium mounted?")
    return OK


def _target(named: str, at: datetime) -> Path:
    path = Path(named)
    # A medium that is not mounted must not become a backup on the disk of the store.
    if named.endswith(os.sep) and not path.is_dir():
        raise InputError(f"there is no folder {named}; mount it or make it first")
    return path / f"gateway-{at:%Y%m%dT%H%M%SZ}" if path.is_dir() else path


def _on_the_disk_of(store: StoreSettings, backup: Path) -> bool:
    """Whether both lie on one file system; a server's disk is not known."""
    from gateway.store.files import database_path  # noqa: PLC0415 - see gateway.cli.session

    if store.url.startswith(POSTGRESQL_PREFIXES):
        return False
    return database_path(store.url).stat().st_dev == backup.stat().st_dev


async def _begin(services: Services) -> int:
    """Write down who copies everything, and make a signed head that covers it."""
    from gateway.auditing.heads import TreeHeads  # noqa: PLC0415 - see gateway.cli.session
    from gateway.auditing.room import signing_key  # noqa: PLC0415 - the same

    await audit(services, "backup.begun", "")
    settings = services.settings.audit
    try:
        signer = await signing_key(settings, services.store)
        heads = TreeHeads(services.store, services.clock, signer, settings.heads_dir)
        await heads.export(await heads.make())
    except (GatewayError, OSError) as exc:
        # A full disk or a lost signing key is a reason to make a backup, and none to make no backup.
        warn(f"no new signed head of the audit log is in the backup: {exc}")
    return OK


async def _record(services: Services, made: Made) -> int:
    manifest = made.manifest
    detail = {
        "manifest_sha256": made.manifest_sha256,
        "messages": manifest.messages,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "tree_size": manifest.tree_size,
    }
    await audit(services, "backup.created", manifest.id, detail)
    return OK


def _ids_at_hand(settings: Settings) -> tuple[str, ...]:
    from gateway.keys.body_keys import body_keys  # noqa: PLC0415 - see gateway.cli.session

    try:
        return body_keys(settings).ids()
    except GatewayError:
        return ()


# --- verify ---


def _verify(args: argparse.Namespace) -> int:
    settings = _settings_or_none(args)
    if args.bucket and (settings is None or not settings.s3.bucket):
        raise ConfigurationError("--bucket: the settings name no bucket; set s3.bucket, or name them with --config")
    looked = _Looking(args, settings)
    report = looked.check()
    backup_report.print_checked(report, looked.notes, json=args.json)
    return FINDINGS if report.findings else OK


def _settings_or_none(args: argparse.Namespace) -> Settings | None:
    """The settings where there are some: a backup can be checked on a machine that has none."""
    named = args.config or os.environ.get(CONFIG_VARIABLE) or any(path.is_file() for path in DEFAULT_CONFIG_PATHS)
    return settings_of(args) if named else None


class _Looking:
    """One check of a backup, with what is at hand for it."""

    def __init__(self, args: argparse.Namespace, settings: Settings | None) -> None:
        self._args = args
        self._settings = settings
        self.notes: list[str] = []
        """What could not be looked at, and how it could."""

    def check(self) -> BackupReport:
        from gateway.store.audit_verify import Witnesses  # noqa: PLC0415 - see gateway.cli.session
        from gateway.store.backup.checking import Checks, check_backup  # noqa: PLC0415 - the same

        args = self._args
        witnesses = Witnesses(self._signatures(), [read_head(path) for path in args.against])
        sealer = None if args.bodies == "none" else self._sealer()
        if sealer is None:
            self.notes.append("no body was opened: that they can be read is shown with their keys only (--key-file)")
        objects = self._objects(sealer) if getattr(args, "bucket", False) else None
        try:
            checks = Checks(witnesses, sealer, _SHARES[args.bodies], objects if sealer is not None else None)
            report = check_backup(args.path, checks, Progress(shown=not args.json))
            if objects is not None and report.manifest is not None:
                self._bucket(objects, report)
        finally:
            if objects is not None:
                objects.close()
        self._compare_manifest(report)
        self._tell(report, checks)
        return report

    def _compare_manifest(self, report: BackupReport) -> None:
        """The settings, trust anchors among them, and what changes in the store rest on the manifest alone."""
        from gateway.store.backup.manifest import manifest_digest, manifest_text  # noqa: PLC0415 - as above

        told, manifest = self._args.manifest_sha256, report.manifest
        if manifest is None:
            return
        if told is None:
            self.notes.append(
                "no head answers for settings/ (trust anchors): compare the manifest's SHA-256 with the one that "
                "backup create told: --manifest-sha256"
            )
        elif told.lower() != manifest_digest(manifest_text(manifest)):
            report.found("the manifest is not the one that was named: --manifest-sha256")

    def _signatures(self) -> Callable[[TreeHead], None]:
        """What checks the signatures of heads; without any key they cannot be checked, which is told."""
        args, settings = self._args, self._settings
        keys = [] if settings is None and not args.public_key else known_keys(settings or Settings(), args.public_key)
        if keys:
            return signature_check(keys)
        if args.against:
            raise InputError("--against: name the key that signed the head with --public-key FILE")
        self.notes.append("signatures of heads were not checked: name the key that signed them with --public-key FILE")
        return lambda _head: None

    def _sealer(self) -> BodySealer | None:
        from gateway.keys.body_key_file import KeyFile  # noqa: PLC0415 - see gateway.cli.session
        from gateway.keys.body_keys import body_sealer  # noqa: PLC0415 - the same
        from gateway.keys.body_sealer import AESBodySealer  # noqa: PLC0415 - the same

        if self._args.key_file is not None:
            sealer = AESBodySealer(KeyFile(self._args.key_file))
            sealer.keys.ids()
            return sealer
        if self._settings is None:
            return None
        try:
            sealer = body_sealer(self._settings)
            sealer.keys.ids()
        except ConfigurationError as exc:
            self.notes.append(str(exc))
            return None
        return sealer

    def _objects(self, sealer: BodySealer | None) -> S3Bodies | None:
        from gateway.keys.body_keys import body_sealer  # noqa: PLC0415 - see gateway.cli.session
        from gateway.store.s3_bodies import S3Bodies  # noqa: PLC0415 - the same
        from gateway.store.s3_bucket import Bucket  # noqa: PLC0415 - the same

        assert self._settings is not None  # noqa: S101 - --bucket without settings was refused
        s3 = self._settings.s3
        return S3Bodies(Bucket(s3), s3, sealer or body_sealer(self._settings), places=False)

    def _bucket(self, objects: S3Bodies, report: BackupReport) -> None:
        from gateway.observability.clock import SystemClock  # noqa: PLC0415 - see gateway.cli.session
        from gateway.store.backup.bucket import check_bucket  # noqa: PLC0415 - the same

        check_bucket(self._args.path, objects, SystemClock().now(), report)

    def _tell(self, report: BackupReport, checks: Checks) -> None:
        for key in report.missing_keys:
            self.notes.append(f"messages under the key {key} were not opened: it is not at hand")
        manifest = report.manifest
        if manifest is not None and manifest.objects and checks.objects is None:
            self.notes.append(
                f"{manifest.objects} bodies lie in a bucket and were not looked at: backup verify --bucket"
            )
        if not self._args.against:
            self.notes.append("only a head that was kept elsewhere shows that nobody made all of it anew: --against")


# --- restore ---


def _restore(args: argparse.Namespace) -> int:
    from gateway.observability.clock import SystemClock  # noqa: PLC0415 - see gateway.cli.session
    from gateway.store.backup.checking import read_backup, require_same_schema  # noqa: PLC0415 - the same
    from gateway.store.backup.manifest import manifest_digest  # noqa: PLC0415 - the same
    from gateway.store.backup.restoring import Restore, place_of, require_place, restore  # noqa: PLC0415 - the same

    settings = settings_of(args)
    manifest, text = read_backup(args.path)
    require_same_schema(manifest)
    # What can be refused at once is refused before an hour of reading.
    require_place(settings.store, manifest)
    looked = _Looking(args, settings)
    report = looked.check()
    if report.manifest is not None and report.manifest != manifest:
        # What is restored is held against the first one, and what was checked was the second.
        raise InputError(f"{args.path} changed while it was checked: see that nobody writes to it, and run it again")
    if manifest.objects and not settings.s3.bucket:
        looked.notes.append(f"{manifest.objects} bodies lie in a bucket: set s3.bucket before the gateway starts")
    place = place_of(settings.store)
    if report.findings:
        backup_report.print_checked(report, looked.notes, json=args.json)
        return FINDINGS
    if not args.dry_run:
        what = Restore(args.path, manifest, manifest_digest(text), actor(), SystemClock().now)
        restore(settings.store, what, Progress(shown=not args.json))
    keys_here = _ids_at_hand(settings)
    backup_report.print_restored(report, place, looked.notes, keys_here, done=not args.dry_run, json=args.json)
    return OK
