"""The life of an inbound message after its last byte has come: one file, one step, one transaction, one job kind."""
