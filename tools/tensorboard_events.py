"""Event files of TensorBoard: records one for the tests, and compares that of a run with its metrics.

Run: `pip install tensorboard==2.21.0 'setuptools<81'`, then

    python tools/tensorboard_events.py record crates/llada-train/src/fixtures/events.out.tfevents
    python tools/tensorboard_events.py compare RUN_DIR
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TAGS = {
    "train/loss": "loss",
    "train/learning_rate": "lr",
    "train/grad_norm": "grad_norm",
    "train/tokens_per_second": "tokens_per_second",
    "validation/bound": "validation_bound",
}


def record(path):
    values = [2.5, 0.125, 1.5, 1000.0, 3.25]
    values = [Summary.Value(tag=tag, simple_value=x) for tag, x in zip(TAGS, values)]
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1000.5, file_version="brain.Event:2").SerializeToString())
        event = Event(wall_time=1300.5, step=300, summary=Summary(value=values))
        writer.write(event.SerializeToString())


def compare(run):
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    lines = (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    n = 0
    for tag, field in TAGS.items():
        expected = [(line["step"], line[field]) for line in lines if field in line]
        found = events.Scalars(tag) if tag in events.Tags()["scalars"] else []
        found = [(event.step, event.value) for event in found]
        single = [(step, struct.unpack("f", struct.pack("f", x))[0]) for step, x in expected]
        assert found == single, (tag, found, single)
        n += len(found)
    print(f"{n} numbers of {len(lines)} lines are the same")


{"record": record, "compare": compare}[sys.argv[1]](sys.argv[2])
