"""Clients for HTTP, Google Cloud Storage, Storage Transfer and Dask; retries and rate limits."""
