"""``python -m tests.chaos``: rounds of faults under load, each followed by a look at whether every promise was kept."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.arena import PREFIX, Arena
from tests.chaos.schedule import LOSING, blows
from tests.chaos.verdict import Judge, unexplained
from tests.integration.topic import RecordsTopic

LOAD_SECONDS = 5.0
RATE = 400


def main() -> int:
    """Run rounds; 0 when all were right, 1 at the first that was not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Starts a broker, ingest and two forwarders, sends flows, and in each round kills, stops and restarts"
        " things as a seed says. After each round, every record that Kafka has must be in the lake exactly once,"
        " and what Kafka never had must be in the books of ingest, unless one of its processes was ended.",
        epilog="A round that fails is had again by its seed and number: python -m tests.chaos --seed 7 --only 12",
    )
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="how many (default: 200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="what happens in them (default: 1)")
    parser.add_argument("--only", type=int, metavar="N", help="nothing but this round")
    parser.add_argument("--protocol", choices=("classic", "consumer"), default="classic", help="of the consumer group")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs, log and lake of the run here")
    arguments = parser.parse_args()
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="sluiceway-chaos-"))
    numbers = range(1, arguments.rounds + 1) if arguments.only is None else [arguments.only]
    done, faults, totals = 0, Counter[str](), Counter[str]()
    try:
        with Arena(directory, arguments.protocol) as arena:
            for fault, why in arena.left_out.items():
                print(f"left out, for {why}: {fault}", flush=True)
            judge = Judge(RecordsTopic(arena.broker.bootstrap_servers, PREFIX), arena.lake)
            for number in numbers:
                drawn = blows(arguments.seed, number, LOAD_SECONDS)
                print(f"round {number}: " + "; ".join(map(str, drawn)), flush=True)
                before = arena.books()
                traffic = arena.send(arguments.seed * 1000 + number, RATE, LOAD_SECONDS)
                arena.strike(drawn, LOAD_SECONDS)
                traffic.wait(60.0)
                arena.settle()
                verdict = judge.judge()
                sent = sum(json.loads(traffic.output)["records"].values())
                lost = sent - (verdict.logged - verdict.repeated)
                print(f"  {sent} sent, {lost} lost before Kafka had them; {verdict}", flush=True)
                silent = 0 if LOSING & {blow.fault for blow in drawn} else unexplained(lost, before, arena.books())
                if silent > 0:
                    print(f"  {silent} records are lost and in no books", file=sys.stderr)
                if arguments.keep is not None and (silent > 0 or not verdict.right or number == numbers[-1]):
                    arena.keep_lake()
                if silent > 0 or not verdict.right:
                    print(f"again: python -m tests.chaos --seed {arguments.seed} --only {number}", file=sys.stderr)
                    return 1
                done += 1
                faults.update(str(blow.fault) for blow in drawn)
                totals.update(unanswered=arena.unanswered - totals["unanswered"])
                totals.update(sent=sent, lost=lost, logged=verdict.logged, repeated=verdict.repeated)
    finally:
        if arguments.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{done} rounds right, seed {arguments.seed}, {arguments.protocol} protocol: {dict(totals)}; {dict(faults)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
