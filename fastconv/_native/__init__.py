"""The native code. Importing it settles how OpenMP waits.

GNU OpenMP's idle threads spin for milliseconds before they sleep. Where other programs want the
same cores, they burn the time that the work itself is waiting for: small networks trained up to ten
times slower. A short spin still catches the next kernel of a step, which follows within
microseconds. The library reads the variable once, when it is loaded, so it is taken back at once; a
choice of the user's own stands.
"""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"
    from fastconv._native import dispatch  # noqa: F401  (which links OpenMP)

    del os.environ["GOMP_SPINCOUNT"]
