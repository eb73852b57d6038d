"""The folder of trust anchors (AS-56, AS-72).

The folder holds certificates that every local domain trusts. A sub-folder named after a domain or an address (in any
case) holds those that it alone trusts, in addition. The sub-folders ``inbound`` and ``outbound`` are built alike, and
what is in them counts for that direction alone. A sub-folder whose name is neither domain nor address, or that lies
too deep, is reported in ``AnchorStore.warnings`` and trusts nobody, and so is a file that holds certificates and is
not read for its suffix.

Failure modes: at the start, what cannot be read stops it with its name, because an anchor that silently does not count
costs an afternoon. When the folder is read again later, each file stands alone: one that is gone is trusted no more,
even when another is damaged; one that is damaged, or a folder that cannot be listed, keeps what it held before, and
``AnchorStore.stale`` says so.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import ConfigurationError, InputError
from gateway.core.trust import BOTH_DIRECTIONS, Direction
from gateway.sta.certificates import Certificate
from gateway.sta.trust_anchors.anchors import AnchorStore, Grant
from gateway.sta.trust_anchors.certificate_files import CERTIFICATE_SUFFIXES, is_passed_over, read_certificates

_HOW_TO_NAME = (
    f"the name of an anchor's file ends with {', '.join(sorted(CERTIFICATE_SUFFIXES))}; rename it, or remove it"
)
Files = Mapping[Path, tuple[Certificate, ...]]


def load_anchors(directory: Path) -> AnchorStore:
    """Read the folder and its sub-folders.

    Raises:
        ConfigurationError: a folder or a certificate file cannot be read; the text names it.
    """
    return _FolderReader(None).read_all(directory)


def reload_anchors(directory: Path, before: AnchorStore) -> AnchorStore:
    """Read the folder again, bundles left out; what cannot be read keeps what it held ``before``. Raises nothing."""
    return _FolderReader(before.files).read_all(directory)


class _FolderReader:
    """Collects what the folders grant; a certificate that lies in several places is read into one object."""

    def __init__(self, before: Files | None) -> None:
        """``before``: what each file held when it was last read; None: whatever cannot be read is an error."""
        self._before = before
        self._grants: list[Grant] = []
        self._warnings: list[str] = []
        self._stale: list[str] = []
        self._files: dict[Path, tuple[Certificate, ...]] = {}
        self._known: dict[bytes, Certificate] = {}

    def read_all(self, directory: Path) -> AnchorStore:
        """Read everything below the folder."""
        self._read(directory, BOTH_DIRECTIONS)
        return AnchorStore(warnings=self._warnings, grants=self._grants, files=self._files, stale=self._stale)

    def _read(self, directory: Path, directions: frozenset[Direction]) -> None:
        """Read a folder that holds common anchors and a sub-folder for each owner."""
        files, folders = self._entries(directory)
        self._grant(files, "", directions)
        for folder in folders:
            one_way = next((d for d in Direction if d.value == folder.name.lower()), None)
            owner = _owner(folder.name)
            if one_way is not None and directions == BOTH_DIRECTIONS:
                self._read(folder, frozenset({one_way}))
            elif owner is None:
                nobody = "is named after neither a domain nor an address; nobody trusts what is in it"
                self._warnings.append(f"{folder} {nobody}")
            else:
                inside, deeper = self._entries(folder)
                self._grant(inside, owner, directions)
                self._warnings += [f"{deep} lies too deep; nobody trusts what is in it" for deep in deeper]

    def _grant(self, paths: Iterable[Path], owner: str, directions: frozenset[Direction]) -> None:
        found: dict[Certificate, None] = {}
        for path in paths:
            self._files[path] = tuple(self._known.setdefault(c.der, c) for c in self._certificates(path))
            found.update(dict.fromkeys(self._files[path]))
            if is_passed_over(path):
                self._warnings.append(f"{path} holds a certificate and is not read: {_HOW_TO_NAME}")
        self._grants.append(Grant(tuple(found), owner, directions))

    def _certificates(self, path: Path) -> Iterable[Certificate]:
        try:
            return read_certificates(path)
        except ConfigurationError as exc:
            if self._before is None:
                raise
            self._stale.append(str(exc))
            return self._before.get(path, ())

    def _entries(self, directory: Path) -> tuple[list[Path], list[Path]]:
        """The files and the folders inside, those whose names begin with a dot left out."""
        try:
            listed = sorted(directory.iterdir())
            kinds = {path: path.stat().st_mode for path in listed if not path.name.startswith(".")}
        except OSError as exc:
            fault = f"cannot read the anchors folder {directory}: {exc.strerror}"
            if self._before is None:
                raise ConfigurationError(fault) from exc
            self._stale.append(fault)
            return self._entries_before(self._before, directory)
        files = [path for path, mode in kinds.items() if stat.S_ISREG(mode)]
        return files, [path for path, mode in kinds.items() if stat.S_ISDIR(mode)]

    @staticmethod
    def _entries_before(before: Files, directory: Path) -> tuple[list[Path], list[Path]]:
        below = [path.relative_to(directory).parts for path in before if path.is_relative_to(directory)]
        files = {directory / parts[0] for parts in below if len(parts) == 1}
        return sorted(files), sorted({directory / parts[0] for parts in below if len(parts) > 1})


def _owner(name: str) -> str | None:
    try:
        return normalise(name) if "@" in name else parse_domain(name)
    except InputError:
        return None
