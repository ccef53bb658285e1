"""Inspection: the architecture in numbers, the prompt, one request traced, and two sounds compared.

Everything here is computed from the key tables, the configuration or a run of the model; nothing is drawn by hand.
"""
