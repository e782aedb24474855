"""Scripts that measure speed, limits and quality, and the results they gave; not installed. See README.md."""
