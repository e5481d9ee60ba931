"""Records what transformers makes of chat templates, for the tests of llada-text.

    python tools/chat_template_goldens.py                    # the fixtures of the repository
    python tools/chat_template_goldens.py FOLDER OUT.json    # of every *.jinja in FOLDER

The second kind of file is replayed by `LLADA_CHAT_TEMPLATES=OUT.json cargo test -p llada-text`.
Needs transformers 5.24 with jinja2 3.1.6; no model and no torch.
"""

import copy
import datetime
import json
import pathlib
import sys

from transformers.utils.chat_template_utils import (
    _alias_reasoning_fields,
    _compile_jinja_template,
    _normalize_chat_messages,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/llada-text/src/chat/fixtures"
NOW = datetime.datetime(2026, 11, 3, 14, 5, 9)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
CONTEXT = {
    "d": {"a": 1, "b": "x"},
    "m": {"content": "hi", "null": None, "nested": {"x": None}},
    "ls": ["p", "q"],
    "none_value": None,
    "messages": [
        {"role": "system", "content": " sys "},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
    ],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **fields):
    return {"role": "assistant", "content": content, **fields}


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of <a city> & more",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "l'été"}, "days": {"enum": [1, 2]}},
            "required": ["city"],
        },
    },
}
CALL = {
    "id": "call_1aaaa",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 1}},
}
CONVERSATIONS = [
    {"messages": [user("hi")], "add_generation_prompt": True},
    {
        "messages": [{"role": "system", "content": "Be <brief>."}, user(" hi "), assistant("yo\n"), user("Why?")],
        "add_generation_prompt": True,
    },
    {"messages": [user("a"), assistant("b"), user("c"), assistant("d")], "add_generation_prompt": False},
    {
        "messages": [
            user("weather?"),
            assistant(None, tool_calls=[CALL]),
            {"role": "tool", "tool_call_id": "call_1aaaa", "name": "get_weather", "content": '{"t": 1.5}'},
            assistant("cold"),
        ],
        "tools": [TOOL],
        "add_generation_prompt": True,
    },
    {
        "messages": [user("think"), assistant("yes", reasoning="hm 1 < 2"), user("more")],
        "add_generation_prompt": True,
        "enable_thinking": False,
    },
    {
        "messages": [user([{"type": "text", "text": "part one"}, {"type": "text", "text": " two"}])],
        "add_generation_prompt": True,
    },
    {
        "messages": [user("docs?")],
        "documents": [{"title": "T", "text": "x 'y'"}],
        "add_generation_prompt": True,
    },
]

# One for each thing that an environment can get wrong.
TEMPLATES = {
    "blocks": "{% for m in messages %}\n  {% if m.role == 'user' %}\n<u>{{ m.content }}\n  {% else %}\n"
    "<{{ m.role }}>{{ m.content }}\n  {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}\n<a>\n{% endif %}\n",
    "line ends": "{% for m in messages %}\r\n{{ m.role }}:\r\n{{ m.content }}\r\n{% endfor %}\r\nend\r",
    "loop controls": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{{ loop.index }}{{ m.role }}{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% set x = 1 %}"
    "{{ m.content }}{{ eos_token }}{% endgeneration %}{{ x is defined }}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "raw": "{% raw %}\n{{ x }}\n{% endraw %}\n{{ messages|length }}{%- raw -%} y {% endraw %}",
    "tools": "{% if tools is not none %}{% for t in tools %}{{ t|tojson }}\n{{ t|tojson(indent=2) }}\n{{ t }}\n"
    "{% endfor %}{% endif %}{{ documents }}{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "{{ c.function.arguments|tojson(ensure_ascii=true, separators=(',', ':')) }}{% endfor %}{% endfor %}",
    "nulls": "{% for m in messages %}{{ m.content is defined }}{{ m.content is none }}{{ m.content }}|{{ m.keys()|list }}"
    "{% if m.reasoning_content is defined %}{{ m.reasoning_content }}{{ m.thinking }}{% endif %}\n{% endfor %}",
    "parts": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content is sequence %}"
    "{{ m.content|map(attribute='text')|join }}{% endif %};{{ m is sequence }}{{ m is mapping }}{% endfor %}",
    "format": "{% for m in messages %}{{ '%02d %s %5.1f%%|' % (loop.index0, m.role, loop.index * 1.5) }}"
    "{{ loop.index0 % 2 == 0 }}{{ -loop.index % 3 }}{{ '%s' % m.role ~ '!' }}{% endfor %}",
    "clock": "{{ strftime_now('%d %b %Y, %H:%M %A %j') }}{{ strftime_now('%Y-%m-%d') }}",
    "safe": "{% for m in messages %}{{ '<'|safe + m.role + '>\n' + m.content|string }}{% endfor %}",
    "macros": "{%- macro turn(m, sep='\\n') -%}{{ m.role|capitalize }}{{ sep }}{{ caller() if caller }}{%- endmacro -%}"
    "{% set ns = namespace(n=0, names=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.names = ns.names + [m.role] %}{{ turn(m, sep=' ') }}{% call turn(m) %}!{% endcall %}{% endfor %}"
    "{{ ns.n }}{{ ns.names }}{{ dict(a=ns.n) }}",
    "refusal": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ messages[0]['content'][:3] }}{{ messages[::-1][0].role }}",
    "variables": "{{ enable_thinking is defined and not enable_thinking }}{{ bos_token }}{{ image_token is defined }}",
}


def compile_template(source):
    compiled = _compile_jinja_template(source)
    compiled.environment.globals["strftime_now"] = NOW.strftime
    return compiled.environment.from_string(source)


def conversations(templates):
    cases = []
    for name, source in templates.items():
        try:
            template = compile_template(source)
        except Exception as error:
            print(f"{name}: no template: {error}")
            continue
        for number, conversation in enumerate(CONVERSATIONS):
            case = {"name": name, "template": source, "case": number, **conversation}
            given = copy.deepcopy(conversation)
            messages = _alias_reasoning_fields(_normalize_chat_messages(given.pop("messages")))
            variables = {**SPECIAL, "tools": None, "documents": None, **given}
            try:
                case["ok"] = template.render(messages=messages, **variables)
            except Exception as error:
                case["err"] = f"{type(error).__name__}: {error}"[:200]
            cases.append(case)
    return {"special": SPECIAL, "cases": cases}


def expressions(lines):
    cases = []
    for line in lines:
        source = "{{ " + line + " }}"
        try:
            result = {"ok": _compile_jinja_template(source).render(**copy.deepcopy(CONTEXT))}
        except Exception as error:
            result = {"err": f"{type(error).__name__}: {error}"}
        cases.append({"template": source, **result})
    return {"context": CONTEXT, "cases": cases}


def write(path, recorded):
    """One case a line."""
    *head, cases = recorded
    text = "{" + ",\n".join(f'"{key}":{json.dumps(recorded[key], ensure_ascii=False)}' for key in head)
    text += f',\n"{cases}":[\n'
    text += ",\n".join(json.dumps(case, ensure_ascii=False) for case in recorded[cases]) + "\n]}\n"
    pathlib.Path(path).write_text(text, encoding="utf-8")


if len(sys.argv) == 3:
    files = sorted(pathlib.Path(sys.argv[1]).rglob("*.jinja"))
    read = {str(file.relative_to(sys.argv[1])): open(file, newline="", encoding="utf-8").read() for file in files}
    write(sys.argv[2], conversations(read))
else:
    listed = (ROOT / "tools/chat_template_expressions.txt").read_text(encoding="utf-8").splitlines()
    write(FIXTURES / "expressions.json", expressions([line for line in listed if line]))
    write(FIXTURES / "conversations.json", conversations(TEMPLATES))
