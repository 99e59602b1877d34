"""A project on disk: its folder, configuration, ledger, and the journals of fetch shards."""
