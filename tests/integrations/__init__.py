"""With the packages that users have around it. Each part is skipped where its package is not installed."""
