"""Sources of images (mirror, original, bucket, ...) and stores for the fetched ones."""
