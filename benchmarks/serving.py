"""Time serving on this machine: what a session adds to bare onnxruntime, what the server adds to a
session, how it bears 32 clients beside a plain handler, and 64 where there is a GPU.

    python benchmarks/serving.py session --threads 2 --json session.json
    python benchmarks/serving.py load --save results/
"""

import run

# part: the module that has it, and how many rounds it times
PARTS = {
    "session": ("serving_session", 31),
    "server": ("serving_server", 5),
    "load": ("serving_load", 3),
    "gpu": ("serving_gpu", 3),
}

if __name__ == "__main__":
    run.measure("serving.py", __doc__, PARTS)
