"""One function a figure; each returns a matplotlib ``Figure`` and saves nothing."""
