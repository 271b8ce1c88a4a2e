"""Run the benchmarks: single layers, training steps, the start of a process, or all of them.

    python benchmarks/run.py all --threads 2 --json results.json

README.md says how it is measured and how to read it.
"""

import common
import layers
import peak
import startup
import steps


def main() -> None:
    parser = common.parser(__doc__)
    what = ("layers", "steps", "startup", "all")
    parser.add_argument("what", nargs="?", choices=what, default="all", help="what to time")
    layers.add_arguments(parser)
    steps.add_arguments(parser)
    args = parser.parse_args()
    common.prepare(args)
    results = {}
    if args.what in ("startup", "all"):
        results["startup"] = startup.run(args.rounds)
    if args.what in ("steps", "layers", "all"):
        limit = results["limit"] = peak.measure_in_use(args.threads)
        if args.what in ("steps", "all"):
            results["steps"] = steps.run(args.steps, args.rounds, limit)
        if args.what in ("layers", "all"):
            results["layers"] = layers.run(args.networks, args.rounds, limit, args.only)
    common.write_json(args, results)


if __name__ == "__main__":
    main()
