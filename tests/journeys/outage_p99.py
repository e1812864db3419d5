"""What the outage of one cloud costs the others (threat V03): a measurement, never a verdict.

    python tests/journeys/outage_p99.py [ROUNDS]

One broker. While four callers ask Google without a pause, one asks for a JWT and one asks Azure, each in a process of its own over a
kept connection. First all is well, then Google hangs, fails and throttles. Tokens are signed before each phase.
"""

import http.client
import multiprocessing
import statistics
import sys
import time
import urllib.parse

from support import EXCHANGE, JWT

CALLERS = 4


def call(connection, target, token):
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": JWT, "audience": target}
    form |= {} if target.startswith("jwt/") else {"scope": "deploy"}
    began = time.perf_counter()
    connection.request("POST", "/token", urllib.parse.urlencode(form), {"content-type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, (time.perf_counter() - began) * 1_000


def asks(port, target, tokens, pause, stop, told):
    """Until it is stopped, or its tokens are used up."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    found = []
    for token in tokens:
        if stop.is_set():
            break
        found.append(call(connection, target, token))
        time.sleep(pause)
    told.put((target, found))


def phase(stage, mood, rounds):
    tokens = iter([stage.broker.issuer.token() for _ in range(2 * rounds + CALLERS * rounds)])
    take = lambda count: [next(tokens) for _ in range(count)]
    spawn = multiprocessing.get_context("spawn")
    stop, told = spawn.Event(), spawn.Queue()
    start = lambda target, pause: spawn.Process(
        target=asks, args=(stage.broker.port, target, take(rounds), pause, stop, told), daemon=True
    )
    callers = [start("google/prod", 0.002) for _ in range(CALLERS)]
    measured = [start(target, 0.005) for target in ("jwt/orders", "azure/prod")]
    stage.clouds.only, stage.clouds.mood = ":generateAccessToken", mood
    for process in callers + measured:
        process.start()
    found = {}
    waiting = {"jwt/orders", "azure/prod"}
    while waiting:
        target, answers = told.get(timeout=300)
        found.setdefault(target, []).extend(answers)
        waiting.discard(target)
    stop.set()
    # Those that hang are let go.
    stage.clouds.mood = "well"
    for process in callers + measured:
        process.join(20)
    # The gate opens again before the next phase.
    time.sleep(20 if mood == "throttles" else 16)
    for target in ("jwt/orders", "azure/prod"):
        times = [took for status, took in found[target] if status == 200]
        lost = len(found[target]) - len(times)
        p99 = statistics.quantiles(times, n=100)[98]
        print(
            f"google {mood:10} {target:11} p50 {statistics.median(times):6.2f} ms  p99 {p99:6.2f} ms  "
            f"{len(times)} granted, {lost} not", flush=True
        )


def main(rounds):
    from standins.stage import Stage

    stage = Stage()
    try:
        for mood in ("well", "hangs", "fails", "throttles"):
            phase(stage, mood, rounds)
    finally:
        stage.end()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
