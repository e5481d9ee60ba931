"""Records the pre-tokenized files of `crates/llada-train/src/data/fixtures`: two documents of ids as
numpy and Megatron-LM write them.

Run: `pip install numpy==2.4.6 && pip download --no-deps megatron-core==0.16.1`, unpack the wheel to
DIR, then `python tools/record_token_files.py DIR OUT`. Megatron's `indexed_dataset.py` is run as it
is; what it imports beside numpy, and the writer does not use, is replaced by a stub.
"""

import importlib.util
import pathlib
import sys
import types

import numpy

DOCUMENTS = [[5, 6, 7, 99], [8, 9, 99]]


def megatron(folder):
    class Stub(types.ModuleType):
        def __getattr__(self, name):
            return type(name, (), {})

    for name in [
        "torch",
        "megatron",
        "megatron.core",
        "megatron.core.datasets",
        "megatron.core.datasets.object_storage_utils",
        "megatron.core.msc_utils",
        "megatron.core.utils",
    ]:
        sys.modules[name] = Stub(name)
    sys.modules["torch"].utils = types.SimpleNamespace(data=types.SimpleNamespace(Dataset=object))
    feature = types.SimpleNamespace(is_enabled=lambda: False, import_package=lambda: None)
    sys.modules["megatron.core.msc_utils"].MultiStorageClientFeature = feature
    sys.modules["megatron.core.utils"].log_single_rank = lambda *args, **kwargs: None
    path = pathlib.Path(folder) / "megatron/core/datasets/indexed_dataset.py"
    spec = importlib.util.spec_from_file_location("indexed_dataset", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(folder, out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    ids = numpy.array(sum(DOCUMENTS, []))
    for name in ["uint16", "uint32", "int32", "int64"]:
        numpy.save(out / f"{name}.npy", ids.astype(name))
    numpy.save(out / "float64.npy", ids.astype("float64"))
    numpy.save(out / "matrix.npy", ids[:6].reshape(2, 3).astype("uint16"))
    module = megatron(folder)
    for name in ["uint16", "int32"]:
        path = str(out / f"megatron-{name}.bin")
        builder = module.IndexedDatasetBuilder(path, dtype=getattr(numpy, name))
        # Two sequences in the first document, as a splitter of sentences makes them.
        for document, lengths in zip(DOCUMENTS, [[2, 2], [3]]):
            builder.add_document(document, lengths)
        builder.finalize(str(out / f"megatron-{name}.idx"))


main(*sys.argv[1:])
