"""Op level of parity: does every face of every op of ``apex_plugins`` compute what its NumPy meaning says?"""
