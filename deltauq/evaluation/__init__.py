"""What is wrong with a fit before it is made, and how good it is after: checks and comparison.

Its modules are imported one by one: `metrics` needs no TensorFlow, and the plots need no more.
"""
