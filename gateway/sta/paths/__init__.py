"""From a signer to an anchor: the ways there, and whether they hold."""
