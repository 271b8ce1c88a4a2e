"""Time serving on this machine: what a session adds to bare onnxruntime.

python benchmarks/serving.py session --threads 2 --json session.json
"""

import run

# part: the module that has it, and how many rounds it times
PARTS = {
    "session": ("serving_session", 31),
}

if __name__ == "__main__":
    run.measure("serving.py", __doc__, PARTS)
