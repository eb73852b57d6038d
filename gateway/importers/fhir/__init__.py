"""The FHIR R4 adapter of the import hook (docs/fhir.md)."""
