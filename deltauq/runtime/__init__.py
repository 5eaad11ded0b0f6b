"""What the library takes of the machine: memory, threads, files, the terminal."""
