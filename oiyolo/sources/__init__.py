"""Where images come from (mirror, original, bucket, ...) and where they are stored."""
