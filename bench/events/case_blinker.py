"""The same case of blinker: `send` calls every receiver before it returns; nothing is queued, stored or awaited."""

from __future__ import annotations

import json
import sys
import time

from blinker import Signal


def main(subscribers: int, count: int) -> None:
    signal = Signal()
    totals = [0] * subscribers
    payload = "x" * 100

    def receiver(index: int):
        def receive(sender: object, *, data: dict[str, object]) -> None:
            totals[index] += data["n"]

        return receive

    receivers = [receiver(index) for index in range(subscribers)]
    for one in receivers:
        signal.connect(one)
    began, cpu = time.perf_counter(), time.process_time()
    for n in range(count):
        signal.send("t", data={"n": n, "text": payload})
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    ok = all(total == count * (count - 1) // 2 for total in totals)
    print(json.dumps({"elapsed": elapsed, "published": elapsed, "cpu": cpu, "ok": ok}))


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]))
