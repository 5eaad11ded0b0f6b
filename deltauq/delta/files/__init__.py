"""A fit in files: artifacts, eigenvectors in fewer bits, and a SavedModel that serves it."""
