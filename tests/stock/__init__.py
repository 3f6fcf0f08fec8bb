"""Models that are no Tokenformer, through the engine and through the server."""
