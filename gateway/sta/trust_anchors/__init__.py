"""Whom we trust: the folder of anchors, and the files of trust bundles."""
