"""Trust bundles at work: fetched, checked, kept and put into force."""
