"""Health, readiness and the one page of this release, over HTTP."""
