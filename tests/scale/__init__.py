"""Servers whose model or requests are divided among several processes, cores or machines."""
