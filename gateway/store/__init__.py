"""The only SQL. Durable, append-only storage behind :class:`gateway.ports.Store`."""
