"""cryotk."""
