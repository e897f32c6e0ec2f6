"""From a source folder to commands: pure planners, nothing is executed here."""
