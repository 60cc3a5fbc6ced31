"""Models made of the layers: thin, and complete enough to be used."""
