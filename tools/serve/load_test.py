#!/usr/bin/env python3
"""Load on a server: many clients, mixed lengths and patterns, and what it costs to be served.

    python3 tools/serve/load_test.py target/release/llada load [--seconds 300] [--clients 64]
    python3 tools/serve/load_test.py target/release/llada throughput [--model DIR]

`load`: every answer must be that of the same request alone; 429 is asked again; memory must not
grow. `throughput`: tokens a second of 8 clients against one, beside `llada bench generate`.
Needs nothing but the standard library.
"""

import argparse
import http.client
import json
import pathlib
import random
import subprocess
import sys
import threading
import time

POEMS = [
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "千山鸟飞绝，万径人踪灭。孤舟蓑笠翁，独钓寒江雪。",
]


class Server:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("listening on "):
                self.port = int(line.rsplit(":", 1)[1])
                break
        else:
            sys.exit("the server did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def memory(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


class Client:
    """One connection, kept alive."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, path, body):
        self.connection.request(
            "POST", path, json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def first_block(self, body):
        """Seconds to the first settled text of a stream, and the whole text."""
        since = time.monotonic()
        body = body | {"stream": True}
        self.connection.request(
            "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = self.connection.getresponse()
        if answer.status != 200:
            return answer.status, None, answer.read()
        first, text = None, ""
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            piece = json.loads(line[6:])["choices"][0]["text"]
            if piece and first is None:
                first = time.monotonic() - since
            text += piece
        return 200, first, text


def requests(count, seed):
    """Mixed work: completions in blocks and whole, infills of random patterns."""
    draw = random.Random(seed)
    for number in range(count):
        poem = draw.choice(POEMS)
        sampler = {
            "seed": number,
            "temperature": draw.choice([0, 0, 0.7]),
            "block_length": draw.choice([None, 4, 8]),
            "cfg_scale": draw.choice([0, 0, 0, 0.5]),
        }
        if draw.random() < 0.4:
            rate = draw.choice([0.2, 0.5, 0.9])
            text = "".join("□" if draw.random() < rate else c for c in poem)
            if "□" in text:
                yield "/v1/infill", {"text": text} | sampler
                continue
        cut = draw.choice([2, 6, 12])
        length = draw.choice([6, 18, 40, 90])
        yield "/v1/completions", {"prompt": poem[:cut], "max_tokens": length} | sampler


def text_of(path, body):
    answer = json.loads(body)
    return answer["text"] if path == "/v1/infill" else answer["choices"][0]["text"]


def load(arguments):
    server = Server([arguments.binary, "serve", "--port", "0"] + arguments.serve)
    todo = list(requests(200, 1))
    alone = Client(server.port)
    single = []
    for path, body in todo:
        status, _, answer = alone.ask(path, body)
        assert status == 200, (status, body, answer)
        single.append(text_of(path, answer))
    end = time.monotonic() + arguments.seconds
    lock, seconds, first, wrong, refused = threading.Lock(), [], [], [], [0]

    def client(number):
        draw, connection = random.Random(number), Client(server.port)
        while time.monotonic() < end:
            at = draw.randrange(len(todo))
            path, body = todo[at]
            since = time.monotonic()
            begun = None
            if path == "/v1/completions" and body["block_length"] and number % 2:
                status, begun, answer = connection.first_block(body)
                text = answer
            else:
                status, headers, answer = connection.ask(path, body)
                text = text_of(path, answer) if status == 200 else None
            with lock:
                if status == 429:
                    refused[0] += 1
                elif status != 200 or text != single[at]:
                    wrong.append((status, body, answer))
                else:
                    seconds.append(time.monotonic() - since)
                    first.extend([begun] if begun is not None else [])
            if status == 429:
                time.sleep(1)

    clients = [threading.Thread(target=client, args=(n,)) for n in range(arguments.clients)]
    for thread in clients:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in clients):
        time.sleep(min(5, arguments.seconds / 20))
        memory.append(server.memory())
    server.process.terminate()
    code = server.process.wait(120)
    early, late = max(memory[: len(memory) // 4 or 1]), max(memory[-(len(memory) // 4 or 1) :])
    result = {
        "answers": len(seconds),
        "refused_429": refused[0],
        "wrong": len(wrong),
        "seconds_p50": quantile(seconds, 0.5),
        "seconds_p99": quantile(seconds, 0.99),
        "first_settled_p50": quantile(first, 0.5),
        "first_settled_p99": quantile(first, 0.99),
        "memory_first_quarter_mb": round(early / 1e6, 1),
        "memory_last_quarter_mb": round(late / 1e6, 1),
        "exit": code,
    }
    print(json.dumps(result))
    for reason in wrong[:3]:
        print(reason, file=sys.stderr)
    if wrong or code != 0 or not seconds or late > early * 1.1 + 16e6:
        sys.exit(1)


def quantile(values, q):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(q * len(values)))], 4) if values else None


def throughput(arguments):
    """Prompt 32, 64 tokens in blocks of 32, one token a step, as the bench has it."""
    shape = {"prompt": 32, "length": 64, "block": 32}
    serve = [arguments.binary, "serve", "--port", "0", "--threads", str(arguments.threads)]
    if arguments.model:
        serve += ["--model", arguments.model]
    serve += ["--dtype", arguments.dtype]
    server = Server(serve)
    vocabulary = 5000
    settings = {
        "max_tokens": shape["length"],
        "block_length": shape["block"],
        "cache": arguments.cache,
        "early_stop": False,
        "logits_eos_inf": True,
    }

    def body(number):
        draw = random.Random(number)
        prompt = [draw.randrange(10, vocabulary) for _ in range(shape["prompt"])]
        return settings | {"prompt": prompt}

    def run(n_clients, seconds):
        end, counts = time.monotonic() + seconds, [0] * n_clients

        def client(number):
            connection, at = Client(server.port), number
            while time.monotonic() < end:
                status, _, answer = connection.ask("/v1/completions", body(at))
                assert status == 200, (status, answer)
                counts[number] += shape["length"]
                at += n_clients

        since = time.monotonic()
        threads = [threading.Thread(target=client, args=(n,)) for n in range(n_clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.monotonic() - since)

    def bench(batch):
        command = [arguments.binary, "bench", "generate", "--format", "json"]
        command += ["--threads", str(arguments.threads), "--batch", str(batch)]
        command += ["--prompt-length", str(shape["prompt"]), "--gen-length", str(shape["length"])]
        command += ["--block-length", str(shape["block"]), "--steps", str(shape["length"])]
        command += ["--cache", arguments.cache, "--dtype", arguments.dtype]
        if arguments.model:
            command += ["--model", arguments.model]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(ran.stdout)["tokens_per_second"]

    run(8, 2)
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append(
            {
                "served_1": run(1, arguments.seconds),
                "bench_1": bench(1),
                "served_8": run(8, arguments.seconds),
                "bench_8": bench(8),
            }
        )
    server.process.terminate()
    server.process.wait(60)
    best = {name: round(max(r[name] for r in rounds), 1) for name in rounds[0]}
    best["served_8_over_1"] = round(best["served_8"] / best["served_1"], 3)
    best["served_over_bench_8"] = round(best["served_8"] / best["bench_8"], 3)
    print(json.dumps(best))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("what", choices=["load", "throughput"])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache", default="dual")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs="*", default=[], help="flags of llada serve")
    arguments = parser.parse_args()
    {"load": load, "throughput": throughput}[arguments.what](arguments)


if __name__ == "__main__":
    main()
