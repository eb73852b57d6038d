"""Whether the certificates of a path have been revoked."""
