"""Everything that exists because a machine is slow or a backend differs.

Each fast function stands beside its plain definition, and tests say that both are equal.
"""
