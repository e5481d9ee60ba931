"""Public clients against `llada serve`: the openai package and lm-evaluation-harness.

    python client_tests.py PATH/TO/llada [NAME ..]

starts the server with the embedded models on a free port of loopback, asks it as users do, and compares
the answers with those of the same binary's commands. Nothing else is reached, and nothing is drawn
without a seed. With NAMEs it runs those tests alone, such as `Completions` or `Harness.test_chain`.

Needs: pip install -e tools/lm_eval_llada "openai>=3.57,<4"
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before the packages that read them.
_CACHE = tempfile.TemporaryDirectory()
os.environ |= {
    "HF_HOME": _CACHE.name,
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "NO_PROXY": "127.0.0.1",
}
ADAPTER = Path(__file__).resolve().parent / "lm_eval_llada"
TASKS = ADAPTER / "tasks"
sys.path.insert(0, str(ADAPTER))

import llada_lm_eval as adapter
import lm_eval
import openai
from lm_eval.tasks import TaskManager

PROMPT = "白日依山尽，"
LLADA = ""
URL = ""
_SERVER: subprocess.Popen[str] | None = None


def setUpModule() -> None:
    global URL, _SERVER
    command = [LLADA, "serve", "--port", "0", "--threads", "2"]
    _SERVER = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert _SERVER.stderr is not None
    for line in _SERVER.stderr:
        if "listening on " in line:
            URL = line.split("listening on ", 1)[1].split()[0]
            break
    assert URL, f"the server has ended: {_SERVER.wait()}"
    # Its log would fill the pipe.
    threading.Thread(target=_SERVER.stderr.read, daemon=True).start()
    os.chdir(TASKS)


def tearDownModule() -> None:
    assert _SERVER is not None
    _SERVER.terminate()
    code = _SERVER.wait(timeout=60)
    assert code == 0, f"the server ended with {code} at SIGTERM"


def llada(*args: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    command = [LLADA, *args, "--format", "json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def generated(*args: str) -> list[dict[str, Any]]:
    return llada("generate", *args)["outputs"]


def texts(answer: Any) -> list[str]:
    """The texts of the choices, in their order."""
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    return [choice.text for choice in answer.choices]


class OpenAi(unittest.TestCase):
    """With a client that tries nothing twice."""

    def setUp(self) -> None:
        self.client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
        self.addCleanup(self.client.close)

    def complete(self, **fields: Any) -> Any:
        return self.client.completions.create(**{"model": "poems", "max_tokens": 6, **fields})

    def refused(self, param: str | None, **fields: Any) -> openai.BadRequestError:
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete(**{"prompt": PROMPT, **fields})
        self.assertEqual(caught.exception.param, param, caught.exception)
        return caught.exception


class Models(OpenAi):
    def test_list(self) -> None:
        models = self.client.models.list().data
        self.assertEqual(models[0].id, "poems")
        for model in models:
            self.assertEqual(model.object, "model")
            self.assertEqual(self.client.models.retrieve(model.id), model)

    def test_unknown(self) -> None:
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.models.retrieve("none")
        self.assertIn("none", caught.exception.message)


class Completions(OpenAi):
    def test_text(self) -> None:
        answer = self.complete(prompt=PROMPT)
        expected = generated(PROMPT, "--gen-length", "6")[0]
        self.assertEqual(texts(answer), [expected["text"]])
        self.assertEqual(answer.object, "text_completion")
        self.assertEqual(answer.model, "poems")
        self.assertEqual(answer.usage.prompt_tokens, expected["prompt_tokens"])
        self.assertEqual(
            answer.usage.total_tokens,
            answer.usage.prompt_tokens + answer.usage.completion_tokens,
        )
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))

    def test_first_model_without_a_name(self) -> None:
        # The package asks for a name; the server does not.
        body = {"prompt": PROMPT, "max_tokens": 6}
        answer = self.client.post("/completions", body=body, cast_to=object)
        self.assertEqual(answer["choices"][0]["text"], texts(self.complete(prompt=PROMPT))[0])

    def test_texts(self) -> None:
        prompts = [PROMPT, "春眠不觉晓，", "千山鸟飞绝，"]
        answer = self.complete(prompt=prompts)
        alone = [texts(self.complete(prompt=prompt))[0] for prompt in prompts]
        self.assertEqual(texts(answer), alone)
        self.assertEqual(len(set(alone)), 3)

    def test_ids(self) -> None:
        body = {"prompt": PROMPT}
        client = openai.OpenAI(base_url=URL, api_key="none")
        ids = client.post("/tokenize", body=body, cast_to=object)["tokens"]
        self.assertEqual(len(ids), len(PROMPT))
        listed = ",".join(map(str, ids))
        expected = generated("--prompt-ids", listed, "--gen-length", "6")[0]["text"]
        self.assertEqual(texts(self.complete(prompt=ids)), [expected])
        self.assertEqual(texts(self.complete(prompt=[ids, ids])), [expected, expected])
        prompt = client.post("/detokenize", body={"tokens": ids}, cast_to=object)["prompt"]
        self.assertEqual(prompt, PROMPT)

    def test_samples_and_seed(self) -> None:
        answer = self.complete(prompt=PROMPT, n=3, seed=5, temperature=1)
        flags = ["--n", "3", "--seed", "5", "--temperature", "1", "--gen-length", "6"]
        expected = [output["text"] for output in generated(PROMPT, *flags)]
        self.assertEqual(texts(answer), expected)
        self.assertEqual(texts(self.complete(prompt=PROMPT, seed=7, temperature=1)), expected[2:])

    def test_stop(self) -> None:
        whole = texts(self.complete(prompt=PROMPT, max_tokens=12))[0]
        stop = whole[3]
        for given in (stop, ["龘", stop]):
            answer = self.complete(prompt=PROMPT, max_tokens=12, stop=given)
            self.assertEqual(texts(answer), [whole[: whole.index(stop)]])
            self.assertEqual(answer.choices[0].finish_reason, "stop")

    def test_suffix(self) -> None:
        answer = self.complete(
            prompt="白日依山尽，黄河", max_tokens=3, suffix="。欲穷千里目，更上一层楼。"
        )
        expected = llada("infill", "白日依山尽，黄河□□□。欲穷千里目，更上一层楼。")
        self.assertIn(answer.choices[0].text, expected["outputs"][0]["text"])
        self.assertEqual(len(answer.choices[0].text), 3)

    def test_sampler(self) -> None:
        fields = {"steps": 3, "block_length": 3, "cfg_scale": 0.5, "remasking": "margin"}
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
        expected = generated(PROMPT, "--gen-length", "6", *flags)[0]
        answer = self.complete(prompt=PROMPT, extra_body=fields)
        self.assertEqual(texts(answer), [expected["text"]])
        self.assertEqual(answer.llada["steps"], 3)

    def test_echo_and_logprobs(self) -> None:
        whole = PROMPT + "黄河入海流。"
        answer = self.complete(prompt=whole, max_tokens=1, echo=True, logprobs=1)
        choice = answer.choices[0]
        self.assertTrue(choice.text.startswith(whole))
        logprobs = choice.logprobs
        self.assertEqual(logprobs.tokens[: len(whole)], list(whole))
        self.assertEqual(logprobs.text_offset[: len(whole)], list(range(len(whole))))
        self.assertIsNone(logprobs.token_logprobs[0])
        for log_p, top in zip(logprobs.token_logprobs[1:], logprobs.top_logprobs[1:], strict=True):
            self.assertLessEqual(log_p, max(top.values()) + 1e-6)
        scored = self.complete(prompt=whole, max_tokens=0, echo=True, logprobs=1).choices[0]
        self.assertEqual(scored.text, whole)
        first = logprobs.token_logprobs[: len(whole)]
        self.assertEqual(scored.logprobs.token_logprobs, first)


class Streams(OpenAi):
    def test_completion(self) -> None:
        fields = {"prompt": PROMPT, "max_tokens": 24, "extra_body": {"block_length": 6}}
        whole = self.complete(**fields)
        usage = {"include_usage": True}
        chunks = list(self.complete(**fields, stream=True, stream_options=usage))
        parts = [choice for chunk in chunks for choice in chunk.choices]
        self.assertEqual("".join(part.text for part in parts), whole.choices[0].text)
        self.assertGreater(sum(bool(part.text) for part in parts), 1)
        reasons = [part.finish_reason for part in parts if part.finish_reason]
        self.assertEqual(reasons, [whole.choices[0].finish_reason])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage, whole.usage)
        self.assertEqual({chunk.id for chunk in chunks}, {chunks[0].id})

    def test_choices(self) -> None:
        fields = {"prompt": [PROMPT, "春眠不觉晓，"], "n": 2, "temperature": 1, "seed": 1}
        whole = texts(self.complete(**fields))
        streamed = [""] * 4
        for chunk in self.complete(**fields, stream=True):
            self.assertIsNone(chunk.usage)
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
        self.assertEqual(streamed, whole)

    def test_denoising_does_not_disturb(self) -> None:
        whole = texts(self.complete(prompt=PROMPT))[0]
        stream = self.complete(prompt=PROMPT, stream=True, extra_body={"stream_mode": "denoise"})
        seen = "".join(
            choice.text for chunk in stream for choice in (chunk.choices or []) if choice.text
        )
        self.assertEqual(seen, whole)


class Chat(OpenAi):
    def setUp(self) -> None:
        super().setUp()
        models = self.client.models.list().data
        models = [model.id for model in models if model.llada["has_chat_template"]]
        if not models:
            self.skipTest("no model with a chat template")
        self.model = models[0]
        self.messages = [{"role": "user", "content": "写一句关于春天的诗。"}]

    def chat(self, **fields: Any) -> Any:
        fields = {"model": self.model, "messages": self.messages, "max_tokens": 12, **fields}
        return self.client.chat.completions.create(**fields)

    def test_answer(self) -> None:
        answer = self.chat()
        self.assertEqual(answer.object, "chat.completion")
        message = answer.choices[0].message
        self.assertEqual(message.role, "assistant")
        self.assertTrue(message.content)
        self.assertEqual(
            self.chat(max_tokens=None, max_completion_tokens=12).choices, answer.choices
        )

    def test_stream(self) -> None:
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        self.assertEqual("".join(deltas), whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage, whole.usage)

    def test_system(self) -> None:
        # The template of the embedded model writes the last message alone (docs/chat.md).
        answer = self.chat(messages=[{"role": "system", "content": "你是诗人。"}, *self.messages])
        self.assertEqual(answer.usage, self.chat().usage)
        self.assertEqual(answer.choices, self.chat().choices)

    def test_errors(self) -> None:
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(messages=[])
        self.assertEqual(caught.exception.param, "messages")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(tools=[{"type": "function", "function": {"name": "f"}}])
        self.assertEqual(caught.exception.param, "tools")


class Errors(OpenAi):
    def test_fields(self) -> None:
        self.refused("temperature", temperature=-1)
        self.refused("max_tokens", max_tokens=0)
        self.refused("n", n=0)
        self.refused("prompt", prompt=[])
        self.refused("prompt", prompt="")
        self.refused("remasking", extra_body={"remasking": "best"})
        self.refused("steps", extra_body={"steps": 0})
        self.refused("best_of", best_of=2)
        self.refused("stepz", extra_body={"stepz": 1})

    def test_rules_that_contradict(self) -> None:
        error = self.refused("threshold", extra_body={"threshold": 0.9, "factor": 1.0})
        self.assertIn("factor", error.message)

    def test_model(self) -> None:
        with self.assertRaises(openai.NotFoundError) as caught:
            self.complete(model="none", prompt=PROMPT)
        self.assertEqual(caught.exception.param, "model")
        self.assertIn("poems", caught.exception.message)

    def test_too_long(self) -> None:
        error = self.refused("max_tokens", max_tokens=100_000)
        self.assertIn("context", error.message)


class Harness(unittest.TestCase):
    """lm-evaluation-harness, with the figures of `llada eval` down to every likelihood."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.manager = TaskManager(include_path=str(TASKS))
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.answers = Path(cls.folder.name) / "answers.jsonl"
        lines = adapter.export("couplets_generate", str(TASKS), None)
        lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]
        cls.answers.write_text("".join(lines), encoding="utf-8")

    def harness(self, name: str, task: str, **model_args: Any) -> dict[str, Any]:
        """The figures of a task, and its samples by their number."""
        result = lm_eval.simple_evaluate(
            model=name,
            model_args=model_args,
            tasks=[task],
            task_manager=self.manager,
            batch_size=8,
            bootstrap_iters=0,
            log_samples=True,
        )
        samples = sorted(result["samples"][task], key=lambda sample: sample["doc_id"])
        figures = {name.split(",")[0]: x for name, x in result["results"][task].items()}
        return {**figures, "samples": samples}

    def native(self, kind: str, data: Path, *flags: str) -> dict[str, Any]:
        """The figures of `llada eval`, and its lines."""
        output = Path(self.folder.name) / f"{self.id()}.jsonl"
        result = llada("eval", kind, "--data", str(data), *flags, "--output", str(output))
        lines = output.read_text(encoding="utf-8").splitlines()
        return {**result, "lines": [json.loads(line) for line in lines]}

    def same_choices(
        self, harness: dict[str, Any], native: dict[str, Any], tolerance: float = 1e-9
    ) -> None:
        self.assertEqual(len(native["lines"]), 40)
        self.assertEqual(harness["acc"], native["accuracy"])
        self.assertEqual(harness["acc_norm"], native["per_character"]["accuracy"])
        # Neither all nor none, so that the figures can differ.
        self.assertGreater(native["accuracy"], 0.3)
        self.assertLess(native["accuracy"], 0.95)
        for sample, line in zip(harness["samples"], native["lines"], strict=True):
            found = [float(response[0]) for response in sample["filtered_resps"]]
            for a, b in zip(found, line["log_likelihoods"], strict=True):
                equal = math.isclose(a, b, rel_tol=tolerance)
                self.assertTrue(equal, (sample["doc_id"], a, b))

    def same_texts(self, harness: dict[str, Any], native: dict[str, Any]) -> None:
        self.assertEqual(len(native["lines"]), 40)
        found = [sample["filtered_resps"][0] for sample in harness["samples"]]
        self.assertEqual(found, [line["text"] for line in native["lines"]])
        self.assertEqual(harness["exact_match"], native["accuracy"])
        self.assertGreater(native["accuracy"], 0.3)
        self.assertLess(native["accuracy"], 0.95)

    def test_chain(self) -> None:
        """`local-completions` scores tokens by the chain rule, without an end."""
        harness = self.harness(
            "local-completions",
            "couplets_choice",
            base_url=f"{URL}/v1/completions",
            model="poems",
            tokenizer_backend="remote",
        )
        flags = ["--estimator", "chain", "--no-eos"]
        native = self.native("likelihood", TASKS / "couplets.jsonl", *flags)
        # Where the likeliest tokens are asked for, log-probabilities are sums of f64 over the logits;
        # a loss is an f32, which is some units of 2^-23 off.
        self.same_choices(harness, native, tolerance=4 * 2.0**-23)

    def test_generation(self) -> None:
        """`local-completions` writes, given texts rather than ids."""
        harness = self.harness(
            "local-completions",
            "couplets_generate",
            base_url=f"{URL}/v1/completions",
            model="poems",
            tokenizer_backend="remote",
            tokenized_requests=False,
        )
        self.same_texts(harness, self.native("generation", self.answers))

    def test_likelihood(self) -> None:
        """`llada-server` scores by eq. 6, with the draws of the same seed."""
        settings = {"mc_samples": 8, "seed": 3, "num_concurrent": 4}
        harness = self.harness("llada-server", "couplets_choice", base_url=URL, **settings)
        flags = ["--mc-samples", "8", "--seed", "3"]
        native = self.native("likelihood", TASKS / "couplets.jsonl", *flags)
        self.same_choices(harness, native)

    def test_guidance(self) -> None:
        settings = {"mc_num": 4, "cfg": 0.5}
        harness = self.harness("llada-server", "couplets_choice", base_url=URL, **settings)
        flags = ["--mc-samples", "4", "--cfg-scale", "0.5"]
        native = self.native("likelihood", TASKS / "couplets.jsonl", *flags)
        self.same_choices(harness, native)

    def test_confidence(self) -> None:
        harness = self.harness(
            "llada-server", "couplets_choice", base_url=URL, estimator="confidence"
        )
        flags = ["--estimator", "confidence"]
        native = self.native("likelihood", TASKS / "couplets.jsonl", *flags)
        self.same_choices(harness, native)

    def test_sampler(self) -> None:
        """`llada-server` writes with the settings of its arguments."""
        settings = {"steps": 3, "block_length": 3, "num_concurrent": 2}
        harness = self.harness("llada-server", "couplets_generate", base_url=URL, **settings)
        flags = ["--steps", "3", "--block-length", "3"]
        self.same_texts(harness, self.native("generation", self.answers, *flags))

    def test_export(self) -> None:
        lines = (TASKS / "couplets.jsonl").read_text(encoding="utf-8").splitlines()
        exported = adapter.export("couplets_choice", str(TASKS), None)
        self.assertEqual(exported, [json.loads(line) for line in lines])

    def test_rolling(self) -> None:
        """A whole text, and one longer than the context."""
        model = adapter.LladaServer(base_url=URL, mc_samples=4)
        text = PROMPT + "黄河入海流。"
        long = text * (model.max_length // len(text) + 1)
        requests = [SimpleNamespace(args=(text,)), SimpleNamespace(args=(long,))]
        short, whole = model.loglikelihood_rolling(requests)
        tokenize = {"model": model.model, "prompt": text}
        ids = ",".join(map(str, model.client.post("/tokenize", tokenize)["tokens"]))
        score = llada("score", "--target-ids", ids, "--mc-samples", "4")
        self.assertTrue(math.isclose(short, score["log_likelihood"], rel_tol=1e-9))
        self.assertLess(whole, short)

    def test_arguments(self) -> None:
        for wrong in ({"model": "none"}, {"stepz": 3}, {"api": "responses"}):
            with self.assertRaises(ValueError) as caught:
                adapter.LladaServer(base_url=URL, **wrong)
            self.assertIn(str(next(iter(wrong))), str(caught.exception))
        model = adapter.LladaServer(base_url=URL, mc_samples=0)
        with self.assertRaises(adapter.ServerError) as error:
            model.loglikelihood([SimpleNamespace(args=("春", "风"))], disable_tqdm=True)
        self.assertIn("mc_samples", str(error.exception))


class Adapter(unittest.TestCase):
    """What needs no model."""

    def test_windows(self) -> None:
        def windows(n: int, length: int) -> list[tuple[list[int], list[int]]]:
            return list(adapter.rolling(list(range(n)), length))

        self.assertEqual(windows(0, 4), [])
        self.assertEqual(windows(4, 4), [([], [0, 1, 2, 3])])
        self.assertEqual(windows(5, 4), [([], [0, 1, 2, 3]), ([1, 2, 3], [4])])
        self.assertEqual(
            windows(9, 4),
            [([], [0, 1, 2, 3]), ([3], [4, 5, 6]), ([5, 6], [7, 8])],
        )

    def test_spaces_belong_to_the_answer(self) -> None:
        self.assertEqual(adapter.split("Answer: ", "A"), ("Answer:", " A"))
        self.assertEqual(adapter.split("Answer:", " A"), ("Answer:", " A"))

    def test_waits_as_long_as_the_server_says(self) -> None:
        answers = [(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"}), (200, {})]
        seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                seen.append(self.path)
                code, headers = answers[len(seen) - 1]
                body = b'{"results": 1}' if code == 200 else b'{"error": {"message": "busy"}}'
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/v1/completions"
            client = adapter.Client(url, None, 10.0, max_retries=2)
            self.assertEqual(client.post("/v1/likelihood", {}), {"results": 1})
            self.assertEqual(seen, ["/v1/likelihood"] * 3)
            seen.clear()
            client.max_retries = 1
            with self.assertRaises(adapter.ServerError) as caught:
                client.post("/v1/likelihood", {})
            self.assertIn("busy", str(caught.exception))
            server.shutdown()

    def test_benchmarks(self) -> None:
        rows = adapter.benchmarks()
        self.assertGreater(len(rows), 50)
        for row in rows.values():
            if row.get("variable_length"):
                with self.assertRaises(SystemExit):
                    adapter.command(row, URL, "task", [])
                continue
            words = adapter.command(row, URL, row.get("task", "task"), ["--limit", "3"])
            self.assertEqual(words[-2:], ["--limit", "3"])
            args = dict(
                arg.split("=", 1) for arg in words[words.index("--model_args") + 1].split(",")
            )
            names = set(args) - {"base_url", "model", "api", "estimator", "mc_samples"}
            adapter.checked({name: args[name] for name in names})
            known = {name for name in ("task", "opencompass") if name in row}
            self.assertTrue(known or "authors" in row["tool"], row["id"])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    LLADA = str(Path(sys.argv[1]).resolve())
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
