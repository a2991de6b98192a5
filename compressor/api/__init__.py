"""The Python interface of the engine: what ``compressor`` exports, and what the commands call."""
