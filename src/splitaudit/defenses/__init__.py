"""What a client can do: harden the delivered model, or notice a server that tampers.

Nothing is imported here: settings are read where nothing is computed.
"""
