"""The import hook put together: the targets of the settings, their adapters, and what hands links to them.

Failure modes: those of the adapters, when something is sent; nothing is opened or asked here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from gateway.core.import_settings import FHIR, MDM, ImporterSettings
from gateway.hl7.mdm_importer import make_mdm_importer
from gateway.importers.configured import importer_for, targets_of
from gateway.importers.fhir.importer import FHIRImporter
from gateway.keys.assertion_key import read_assertion_key
from gateway.observability.clock import SystemClock
from gateway.pipeline.deliver import Deliveries, Target
from gateway.pipeline.message_view import view_message
from gateway.ports import PatientImporter, Store
from gateway.settings import Settings


def import_targets(settings: Settings) -> list[ImporterSettings]:
    """Every target, those that are switched off as well: links go on waiting for them."""
    return targets_of(settings.importer, settings.charts.folder_importer_dir)


def import_names(settings: Settings) -> list[str]:
    """For whom a new link is meant."""
    return [target.name for target in import_targets(settings)]


def import_deliveries(settings: Settings, store: Store, clock: SystemClock) -> Deliveries:
    """What hands links to the targets that are switched on."""
    return Deliveries(
        store,
        clock,
        _adapters([target for target in import_targets(settings) if target.enabled], clock),
        view_message,
        jitter=lambda: random.uniform(1.0, 1.2),  # noqa: S311 - spreads retries, hides nothing
    )


def adapter_for(target: ImporterSettings, clock: SystemClock) -> PatientImporter:
    """The adapter of a target, of whichever room. Touches nothing."""
    if target.kind == FHIR:
        # Keys are read by their own room; the adapter only asks for signatures.
        return FHIRImporter(target, clock, read_assertion_key)
    return make_mdm_importer(target) if target.kind == MDM else importer_for(target, clock)


def _adapters(targets: Sequence[ImporterSettings], clock: SystemClock) -> list[Target]:
    return [
        Target(
            adapter_for(target, clock),
            schedule=target.schedule,
            timeout_seconds=float(target.timeout_seconds),
            at_once=target.at_once,
        )
        for target in targets
    ]
