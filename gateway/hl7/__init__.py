"""HL7 v2 over MLLP: the feed that tells of patients (ADT), and documents for the chart (MDM)."""
