"""Flags fill a config, results are printed; no logic lives here."""
