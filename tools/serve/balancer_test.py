#!/usr/bin/env python3
"""Two replicas behind HAProxy, of which one is killed and one is stopped under load.

    python3 tools/serve/balancer_test.py target/debug/llada

Needs `haproxy` on the PATH and nothing but the standard library. Every request must have the answer
of its single run, whichever replica is killed in the middle of it.
"""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

CONFIG = pathlib.Path(__file__).parent / "haproxy.cfg"
PROMPTS = ["床前明月光，", "白日依山尽，", "春眠不觉晓，", "千山鸟飞绝，"]
CLIENTS = 8
SECONDS = 12


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Replica:
    """A server on a port of its own."""

    def __init__(self, binary, port):
        self.command = [binary, "serve", "--port", str(port), "--threads", "1"]
        self.port = port
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("listening on "):
                break
        else:
            sys.exit(f"the replica did not start: {self.process.wait()}")
        # Whatever else it says must not fill the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def kill(self):
        self.process.kill()
        self.process.wait()


def ask(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def bodies():
    for number in range(64):
        yield {
            "prompt": PROMPTS[number % len(PROMPTS)],
            "max_tokens": 18 + 6 * (number % 3),
            "temperature": 0.7 if number % 2 else 0.0,
            "seed": number,
        }


def main():
    binary = sys.argv[1]
    replicas = [Replica(binary, free_port()) for _ in range(2)]
    port = free_port()
    environment = os.environ | {
        "LLADA_PORT": str(port),
        "LLADA_ONE": str(replicas[0].port),
        "LLADA_TWO": str(replicas[1].port),
    }
    balancer = subprocess.Popen(["haproxy", "-db", "-f", str(CONFIG)], env=environment)
    try:
        wait_for(port)
        todo = list(bodies())
        single = [text_of(*ask(replicas[0].port, body)) for body in todo]
        counts, wrong = under_load(port, todo, single, replicas)
        for reason in wrong[:5]:
            print(reason, file=sys.stderr)
        print(f"{sum(counts)} answers, {len(wrong)} lost or wrong, one replica killed, one stopped")
        if wrong or sum(counts) < CLIENTS:
            sys.exit(1)
    finally:
        balancer.kill()
        for replica in replicas:
            replica.kill()


def wait_for(port):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if ask(port, {"prompt": PROMPTS[0], "max_tokens": 1})[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit("the balancer does not answer")


def text_of(status, body):
    assert status == 200, (status, body)
    return json.loads(body)["choices"][0]["text"]


def under_load(port, todo, single, replicas):
    """How many answers each client had, and what went wrong."""
    end = time.monotonic() + SECONDS
    counts, wrong = [0] * CLIENTS, []

    def client(number):
        at = number
        while time.monotonic() < end:
            at = (at + CLIENTS + 1) % len(todo)
            try:
                status, body = ask(port, todo[at])
                if status != 200 or text_of(status, body) != single[at]:
                    wrong.append(f"{status} {body[:300]!r} to {todo[at]}")
            except (OSError, http.client.HTTPException) as error:
                wrong.append(f"{error!r} to {todo[at]}")
            counts[number] += 1

    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    time.sleep(SECONDS / 4)
    replicas[0].kill()
    time.sleep(SECONDS / 6)
    replicas[0].start()
    time.sleep(SECONDS / 6)
    # One that is told to stop answers what it has.
    replicas[1].process.send_signal(signal.SIGTERM)
    if replicas[1].process.wait(60) != 0:
        wrong.append(f"the stopped replica ended with {replicas[1].process.returncode}")
    replicas[1].start()
    for thread in clients:
        thread.join()
    return counts, wrong


if __name__ == "__main__":
    main()
