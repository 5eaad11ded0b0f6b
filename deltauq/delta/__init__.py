"""The Delta method on a model: the problem, the steps of a fit, and what can be asked of it.

Its modules are imported one by one: reading the file of an artifact needs no TensorFlow.
"""
