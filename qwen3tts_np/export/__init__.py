"""The network as graphs that other runtimes can run, written from the arrays and formulas alone."""
