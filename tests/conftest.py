"""Settings that hold before any test module imports torch."""

import os

# pytest runs on as many processes as there are cores; more threads than that take turns and triple the time
os.environ.setdefault("OMP_NUM_THREADS", "1")
