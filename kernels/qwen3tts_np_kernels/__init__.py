"""Array functions of the model. They know arrays only: no configuration, no weight classes, no files.

Each file defines one function of the model in plain NumPy, named ``x_ref``. It is the definition, and the oracle of
the compiled kernel ``x``.
"""
