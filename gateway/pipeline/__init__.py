"""The life of an inbound message after its last byte has come: one file, one step, one transaction, one job kind.

Where the next step is certain it is taken in the transaction of the one before (:mod:`gateway.pipeline.onward`).
"""
