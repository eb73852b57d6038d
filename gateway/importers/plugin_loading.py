"""Finds the plug-ins that are installed, and makes an importer of one.

An entry point of the group ``direct_gateway.importer`` names a callable that takes the options (a dictionary, empty
without ``options_file``) and returns an importer. To list what is installed imports nothing of it.

Failure modes: :class:`PluginError` with a reason code and a text for the operator.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gateway.core.errors import GatewayError
from gateway.importers.plugin_frames import GROUP
from gateway.ports import IMPORTER_API_VERSION, PatientImporter

METHODS = ("import_message", "retract", "check", "preview", "close")


class PluginError(GatewayError):
    """A plug-in is not there, or is none."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A plug-in as its package says."""

    name: str
    value: str
    """Module and attribute."""
    distribution: str
    version: str


def installed() -> list[InstalledPlugin]:
    """Every plug-in that is installed, by name."""
    found = [
        InstalledPlugin(p.name, p.value, p.dist.name if p.dist else "", p.dist.version if p.dist else "")
        for p in entry_points(group=GROUP)
    ]
    return sorted(found, key=lambda one: one.name)


def find(name: str) -> EntryPoint:
    """The entry point of a plug-in.

    Raises:
        PluginError: there is none of that name, or more than one.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        known = ", ".join(sorted({one.name for one in installed()})) or "none"
        raise PluginError("unknown_plugin", f"no plug-in {name} is installed (there is: {known})")
    if len({(one.value, one.dist.name if one.dist else "") for one in found}) > 1:
        raise PluginError("ambiguous_plugin", f"several packages bring a plug-in {name}; uninstall all but one")
    return found[0]


def load(name: str, options: Mapping[str, Any]) -> PatientImporter:
    """Import a plug-in and make its importer. Runs code of others: to be called in a process of its own.

    Raises:
        PluginError: it cannot be imported, raises, is no importer, or is written for another version of the API.
    """
    point = find(name)
    try:
        made: Any = point.load()(dict(options))
    except Exception as exc:
        raise PluginError("cannot_load", f"the plug-in {name} raises {type(exc).__name__} when it is loaded") from exc
    return checked(name, made)


def checked(name: str, made: Any) -> PatientImporter:
    """The importer, when it is one. Raises PluginError."""
    version = getattr(made, "api_version", None)
    if version != IMPORTER_API_VERSION:
        raise PluginError(
            "api_version",
            f"the plug-in {name} is written for version {version!r} of the API; this gateway has "
            f"{IMPORTER_API_VERSION}: install a release of it that fits",
        )
    for method in METHODS:
        if not inspect.iscoroutinefunction(getattr(made, method, None)):
            raise PluginError("no_importer", f"the plug-in {name} has no method: async def {method}")
    for attribute in ("name", "capabilities"):
        if not hasattr(made, attribute):
            raise PluginError("no_importer", f"the plug-in {name} has no property {attribute}")
    found: PatientImporter = made
    return found
