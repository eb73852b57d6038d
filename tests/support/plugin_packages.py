"""Plug-ins as real packages: a folder on the search path with a module, and the metadata that pip would write."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SOUND = '''
import asyncio
import json
import pathlib

from gateway.core.errors import ImportRefusedError
from gateway.ports import IMPORTER_API_VERSION, ImporterCapabilities, ImportPreview


class Importer:
    """Keeps a file for each link, by its id."""

    name = "sound"
    api_version = IMPORTER_API_VERSION
    capabilities = ImporterCapabilities(retract=True, preview=True)

    def __init__(self, options):
        self.folder = pathlib.Path(options["folder"])

    async def import_message(self, request):
        await asyncio.to_thread((self.folder / request.link.id).write_text, request.patient.family)
        return f"file {request.link.id}"

    async def retract(self, retraction):
        (self.folder / retraction.key).write_text(retraction.reason)
        return f"file {retraction.key}"

    async def check(self):
        return None if self.folder.is_dir() else "the folder is not there"

    async def preview(self, request):
        return ImportPreview("application/json", json.dumps({"link": request.link.id}).encode())

    async def close(self):
        pass
'''


def install(place: Path, name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with one plug-in of that name, whose module is the source and has a class ``Importer``."""
    place.mkdir(exist_ok=True)
    module = f"plugin_{name.replace('-', '_')}"
    (place / f"{module}.py").write_text(source)
    metadata = place / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[direct_gateway.importer]\n{name} = {module}:Importer\n")
    if str(place) not in sys.path:
        monkeypatch.syspath_prepend(str(place))


def changed(old: str, new: str) -> str:
    """The sound plug-in with one thing wrong."""
    assert SOUND.count(old) == 1, old
    return SOUND.replace(old, new)
