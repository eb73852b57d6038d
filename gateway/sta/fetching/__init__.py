"""What may be fetched because a certificate says so: guarded, bounded, remembered."""
