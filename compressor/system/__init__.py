"""What is not mathematics: devices, threads, memory, files, the cache folder, processes."""
