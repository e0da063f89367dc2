"""What a configuration costs before it runs."""
