"""MIME on bytes: header blocks, addresses and the tree of parts as offsets. Nothing is copied or rewritten."""
