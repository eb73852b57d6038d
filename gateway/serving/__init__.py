"""What the servers that mail clients talk to share: connections within limits."""
