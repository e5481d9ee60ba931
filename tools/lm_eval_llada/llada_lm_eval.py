"""lm-evaluation-harness (lm-eval 0.4.13) against `llada serve`.

The model `llada-server` scores by `POST /v1/likelihood`, so that likelihoods are those of the LLaDA
paper (arXiv 2502.09992, eq. 6, with classifier-free guidance if asked for), which a completions
endpoint can't give: its requests don't say where the answer begins. It writes by `/v1/completions`,
or by `/v1/chat/completions`, with the sampler's settings in the body.

    llada-lm-eval run --model llada-server --model_args base_url=http://127.0.0.1:8080,mc_samples=128 ..
    llada-lm-eval benchmarks                  the rows of benchmarks.toml
    llada-lm-eval command ROW [ARGS ..]       the lm-eval command of a row
    llada-lm-eval benchmark ROW [ARGS ..]     runs it
    llada-lm-eval export TASK FILE.jsonl      the requests of a task, for `llada eval`

`run`, `ls` and `validate` are lm-eval's own commands.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401  registers lm-eval's own, which it does not if another was first
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

# Fields of the server's sampler, as in `llada generate`.
INTEGERS = {
    "steps", "block_length", "gen_length", "top_k", "leap_radius", "suffix_window",
    "prompt_interval", "vicinity", "refresh_interval", "keep_active", "speculate",
    "seed",
}  # fmt: skip
NUMBERS = {
    "temperature", "top_p", "threshold", "factor", "eb_gamma", "entropy_exit",
    "relaxed_threshold", "low_threshold", "threshold_fall", "overlap", "margin_exit", "margin_exit_fall",
    "cfg_scale",
}  # fmt: skip
FLAGS = {"early_stop", "logits_eos_inf", "confidence_eos_eot_inf"}
NAMES = {"remasking", "cache"}
SAMPLER = INTEGERS | NUMBERS | FLAGS | NAMES

# Longest wait that the server asks for and that is obeyed, in seconds.
MAX_WAIT = 600.0


class Messages(str):
    """A conversation as JSON, where lm-eval expects the text of a prompt."""


class ServerError(RuntimeError):
    """The server refused a request, or can't be reached."""


class Client:
    """JSON over HTTP; waits and tries again when the server is busy (429, 503) or gone."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float, max_retries: int):
        base_url = base_url.rstrip("/")
        # Also what `local-completions` takes.
        for path in ("/chat/completions", "/completions", "/v1"):
            base_url = base_url.removesuffix(path)
        self.base_url = base_url
        self.timeout = timeout
        self.max_retries = max_retries
        self.headers = {"Content-Type": "application/json"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def get(self, path: str) -> dict[str, Any]:
        return self._send(path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._send(path, json.dumps(body, ensure_ascii=False).encode())

    def _send(self, path: str, data: bytes | None) -> dict[str, Any]:
        url = self.base_url + path
        for attempt in itertools.count():
            request = urllib.request.Request(url, data=data, headers=self.headers)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                message = _message(error)
                wait = _retry_after(error)
                if error.code not in (429, 503) or attempt >= self.max_retries:
                    raise ServerError(f"{url}: {error.code}: {message}") from None
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if attempt >= self.max_retries:
                    raise ServerError(f"{url}: {error}") from None
                wait = None
            time.sleep(min(2.0**attempt, 30.0) if wait is None else wait)
        raise AssertionError("unreachable")


def _message(error: urllib.error.HTTPError) -> str:
    """What OpenAI's error body says, with the field at fault."""
    text = error.read().decode(errors="replace")
    try:
        fault = json.loads(text)["error"]
        param = fault.get("param")
        return f"{param}: {fault['message']}" if param else str(fault["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return text.strip() or str(error.reason)


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks to wait."""
    try:
        return min(max(float(error.headers.get("Retry-After", "")), 0.0), MAX_WAIT)
    except ValueError:
        return None


@register_model("llada-server")
class LladaServer(LM):
    """A model that `llada serve` serves; see the arguments of `__init__` for `--model_args`."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        model: str | None = None,
        estimator: str = "l",
        mc_samples: int = 128,
        cfg_scale: float = 0.0,
        seed: int = 0,
        api: str = "completions",
        max_gen_toks: int = 256,
        batch_size: int | str = 1,
        num_concurrent: int = 1,
        max_retries: int = 8,
        timeout: float = 3600.0,
        max_batch_size: int | None = None,
        device: str | None = None,
        **sampler: Any,
    ):
        """
        - `base_url`: of the server, with or without `/v1/completions`.
        - `model`: one of `GET /v1/models`; the first of them if not given.
        - `estimator` (`l`: eq. 6, `t`: eq. 5, `chain`, `confidence`), `mc_samples` (`mc_num`),
          `cfg_scale` (`cfg`): of likelihoods; `cfg_scale` of texts as well.
        - `seed` of all draws.
        - `api`: `completions`, or `chat`, which needs `--apply_chat_template`.
        - `gen_length`: tokens of every answer, whatever the task says; `max_gen_toks`: those of a
          task that says nothing.
        - `batch_size`: prompts in a request; `num_concurrent`: requests at a time.
        - `sampler`: any of `SAMPLER`.
        """
        super().__init__()
        # The names of LLaDA's own adapter.
        mc_samples = sampler.pop("mc_num", mc_samples)
        cfg_scale = sampler.pop("cfg", cfg_scale)
        if api not in ("completions", "chat"):
            raise ValueError(f"api={api}: expected completions or chat")
        key = os.environ.get("OPENAI_API_KEY")
        self.client = Client(base_url, key, float(timeout), int(max_retries))
        self.scoring = {
            "estimator": str(estimator),
            "mc_samples": int(mc_samples),
            "cfg_scale": float(cfg_scale),
            "seed": int(seed),
        }
        self.sampler = {"cfg_scale": float(cfg_scale), "seed": int(seed), **checked(sampler)}
        self.api = api
        self.max_gen_toks = int(max_gen_toks)
        # Automatic sizes are for models that are loaded here.
        self.batch_size = 1 if "auto" in str(batch_size) else int(batch_size)
        self.num_concurrent = int(num_concurrent)
        info = self._info(model)
        self.model = info["id"]
        self.max_length = int(info["llada"]["max_sequence_length"])

    def _info(self, model: str | None) -> dict[str, Any]:
        models = self.client.get("/v1/models")["data"]
        found = [info for info in models if model in (None, info["id"])]
        if not found:
            known = ", ".join(info["id"] for info in models)
            raise ValueError(f"model={model}: the server has {known}")
        return found[0]

    @property
    def tokenizer_name(self) -> str:
        return self.model.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The server renders the template; here the messages are carried along."""
        if not add_generation_prompt:
            raise NotImplementedError("an answer that is begun needs a prompt as text")
        return Messages(json.dumps(chat_history, ensure_ascii=False))

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """One request for the choices of a question, which follow one another."""
        pairs = [split(*request.args) for request in requests]
        groups = [
            (prompt, [target for _, target in group])
            for prompt, group in itertools.groupby(pairs, key=lambda pair: pair[0])
        ]
        bodies = [{"prompt": prompt, "targets": targets} for prompt, targets in groups]
        results = []
        for answer in self._all("/v1/likelihood", bodies, self.scoring, disable_tqdm):
            for result in answer["results"]:
                results.append((result["log_likelihood"], result["greedy_match"]))
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Whole texts: those longer than the context in windows, each token scored once."""
        windows = []
        for number, request in enumerate(requests):
            text = request.args[0]
            tokens = self.client.post("/tokenize", {"model": self.model, "prompt": text})["tokens"]
            windows += [(number, *window) for window in rolling(tokens, self.max_length)]
        bodies = [{"prompt_tokens": given, "targets": [scored]} for _, given, scored in windows]
        sums = [0.0] * len(requests)
        answers = self._all("/v1/likelihood", bodies, self.scoring, disable_tqdm)
        for (number, _, _), answer in zip(windows, answers, strict=True):
            sums[number] += answer["results"][0]["log_likelihood"]
        for request, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts up to a stop; prompts with the same settings share a request."""
        is_chat = self.api == "chat"
        size = 1 if is_chat else self.batch_size
        bodies = []
        for settings, group in itertools.groupby(
            requests, key=lambda request: self._settings(request.args[1])
        ):
            contexts = [request.args[0] for request in group]
            if any(isinstance(context, Messages) is not is_chat for context in contexts):
                raise ValueError("api=chat and --apply_chat_template need one another")
            for start in range(0, len(contexts), size):
                batch = contexts[start : start + size]
                given = {"messages": json.loads(batch[0])} if is_chat else {"prompt": batch}
                bodies.append({**given, **settings})
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        texts = []
        for answer in self._all(path, bodies, {}, disable_tqdm):
            for choice in sorted(answer["choices"], key=lambda choice: choice["index"]):
                texts.append(choice["message"]["content"] if is_chat else choice["text"])
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _settings(self, gen_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The fields of a request out of a task's `generation_kwargs` and `--gen_kwargs`; those of
        `--model_args` come first, as they are of the model."""
        given = dict(gen_kwargs)
        until = given.pop("until", None) or []
        length = given.pop("max_gen_toks", given.pop("max_tokens", self.max_gen_toks))
        if given.pop("do_sample", None) is False:
            given["temperature"] = 0.0
        settings = {"gen_length": int(length), **checked(given), **self.sampler}
        stop = [until] if isinstance(until, str) else list(until)
        return {**settings, "stop": stop} if stop else settings

    def _all(
        self,
        path: str,
        bodies: list[dict[str, Any]],
        settings: dict[str, Any],
        disable_tqdm: bool,
    ) -> Iterable[dict[str, Any]]:
        """The answers to requests, in their order."""

        def send(body: dict[str, Any]) -> dict[str, Any]:
            return self.client.post(path, {"model": self.model, **settings, **body})

        with ThreadPoolExecutor(self.num_concurrent) as pool:
            answers = pool.map(send, bodies)
            yield from tqdm(answers, total=len(bodies), desc=path, disable=disable_tqdm)


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the sampler with their types; what a command line has is text."""
    checked = {}
    for name, value in settings.items():
        if name in INTEGERS:
            checked[name] = int(value)
        elif name in NUMBERS:
            checked[name] = float(value)
        elif name in FLAGS:
            checked[name] = str(value).lower() in ("true", "1")
        elif name in NAMES:
            checked[name] = str(value)
        else:
            known = ", ".join(sorted(SAMPLER))
            raise ValueError(f"{name}: not a setting of the sampler; expected one of {known}")
    return checked


def split(context: str, continuation: str) -> tuple[str, str]:
    """White space at the end of the prompt belongs to the answer, as in lm-eval and LLaDA's own
    adapter: tokens begin with their space."""
    prompt = context.rstrip()
    return prompt, context[len(prompt) :] + continuation


def rolling(tokens: list[int], length: int) -> Iterator[tuple[list[int], list[int]]]:
    """What is given and what is scored of a text, in windows of at most `length` tokens; the last one
    is filled up with what comes before it."""
    if tokens:
        yield [], tokens[:length]
    for start in range(length, len(tokens), length - 1):
        end = min(start + length - 1, len(tokens))
        yield tokens[end - length : start], tokens[start:end]


# --- the benchmarks of the paper ---

# Beside this file, or where an installed package has its data.
BENCHMARKS = next(
    folder / "benchmarks.toml"
    for folder in (Path(__file__).parent, Path(sys.prefix) / "share" / "llada-lm-eval")
    if (folder / "benchmarks.toml").is_file()
)


def benchmarks() -> dict[str, dict[str, Any]]:
    """The rows of benchmarks.toml by their id."""
    with BENCHMARKS.open("rb") as file:
        return {row["id"]: row for row in tomllib.load(file)["row"]}


def command(row: dict[str, Any], base_url: str, task: str | None, more: list[str]) -> list[str]:
    """The lm-eval command of a row, with further arguments."""
    task = task or row.get("task")
    if task is None:
        raise SystemExit(
            f"{row['id']}: published with {row['tool']}, and no lm-eval task is named for it; "
            "name one with --task to run it with the settings of this row"
        )
    args: dict[str, Any] = {"base_url": base_url, "model": row["model"]}
    if row.get("variable_length"):
        raise SystemExit(f"{row['id']}: the server has no loop that writes texts of any length")
    names = ("estimator", "mc_samples", "cfg_scale", "remasking")
    if row["kind"] == "generation":
        names += ("gen_length", "steps", "block_length", *sorted(FLAGS))
    args |= {name: row[name] for name in names if name in row}
    if row["prompt"] == "chat":
        args["api"] = "chat"
    words = ["llada-lm-eval", "run", "--model", "llada-server"]
    words += ["--model_args", ",".join(f"{name}={value}" for name, value in args.items())]
    words += ["--tasks", task]
    if "num_fewshot" in row:
        words += ["--num_fewshot", str(row["num_fewshot"])]
    if row.get("unsafe_code"):
        words.append("--confirm_run_unsafe_code")
    if row["prompt"] == "chat":
        words.append("--apply_chat_template")
    return words + more


# --- tasks for `llada eval` ---


def export(task_name: str, include_path: str | None, limit: int | None) -> list[dict[str, Any]]:
    """The requests of a task as lines for `llada eval likelihood` or `llada eval generation`."""
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=include_path).load([task_name])["tasks"]
    if list(tasks) != [task_name]:
        raise SystemExit(f"{task_name} is a group: export one of {', '.join(tasks)}")
    task = tasks[task_name]
    task.build_all_requests(limit=limit, rank=0, world_size=1)
    lines = []
    for _, group in itertools.groupby(task.instances, key=lambda instance: instance.doc_id):
        instances = list(group)
        if task.OUTPUT_TYPE == "multiple_choice":
            lines.append(choice_line(task, instances))
        elif task.OUTPUT_TYPE == "generate_until":
            answer = task.doc_to_target(instances[0].doc)
            if not isinstance(answer, str):
                raise SystemExit(f"{task_name}: its answers are no texts that could be matched")
            lines.append({"prompt": instances[0].args[0], "answer": answer.strip()})
        else:
            raise SystemExit(f"{task_name}: {task.OUTPUT_TYPE} has no counterpart in llada eval")
    return lines


def choice_line(task: Any, instances: list[Instance]) -> dict[str, Any]:
    """A question of `llada eval likelihood`."""
    pairs = [split(*instance.args) for instance in instances]
    prompts = {prompt for prompt, _ in pairs}
    answer = task.doc_to_target(instances[0].doc)
    if isinstance(answer, str):
        answer = task.doc_to_choice(instances[0].doc).index(answer)
    if len(prompts) != 1 or not isinstance(answer, int):
        raise SystemExit(
            f"{task.config.task}: a question with several prompts or answers is no line of "
            "llada eval; run it with --model llada-server"
        )
    return {"prompt": prompts.pop(), "choices": [target for _, target in pairs], "answer": answer}


def main() -> None:
    """The command `llada-lm-eval`."""
    if sys.argv[1:2] and sys.argv[1] not in ("benchmarks", "command", "benchmark", "export"):
        from lm_eval.__main__ import cli_evaluate

        return cli_evaluate()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("benchmarks", help="list the rows of benchmarks.toml")
    for name, help_ in (("command", "print the command of a row"), ("benchmark", "run a row")):
        sub = commands.add_parser(name, help=help_)
        sub.add_argument("row")
        sub.add_argument("--base-url", default="http://127.0.0.1:8080")
        sub.add_argument("--task", help="another task of lm-eval")
    sub = commands.add_parser("export", help="write the requests of a task for llada eval")
    sub.add_argument("task")
    sub.add_argument("file", type=Path)
    sub.add_argument("--include-path", help="folder with tasks of your own")
    sub.add_argument("--limit", type=int)
    args, more = parser.parse_known_args()
    if args.command == "benchmarks":
        for row in benchmarks().values():
            print(f"{row['id']:28} {row['kind']:10} {row['published']:5} {row['model']}")
    elif args.command == "export":
        lines = export(args.task, args.include_path, args.limit)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        args.file.write_text(text, encoding="utf-8")
        print(f"{len(lines)} lines in {args.file}")
    else:
        rows = benchmarks()
        if args.row not in rows:
            raise SystemExit(
                f"{args.row}: no row of {BENCHMARKS.name}; see llada-lm-eval benchmarks"
            )
        words = command(rows[args.row], args.base_url, args.task, more)
        if args.command == "command":
            print(shlex.join(words))
        else:
            program = [sys.executable, str(Path(__file__).resolve()), *words[1:]]
            raise SystemExit(subprocess.run(program, check=False).returncode)


if __name__ == "__main__":
    main()
