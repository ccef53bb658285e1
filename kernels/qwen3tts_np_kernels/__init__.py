"""Array functions of the model. Knows arrays only: no configuration, no weights classes, no files.

Each file holds a function of the model as plain NumPy, named ``x_ref``: the definition, and the oracle of the
compiled kernel ``x`` below it.
"""
