"""Where files lie: folders, patterns, saved datasets, object storage and other filesystems."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from launcher.prepare.sources import places
from launcher.prepare.sources.source import digest_of, find_sources
from recipes.data import Data, Source
from recipes.errors import DataError
from support.row_files import columns_of, read_all, write

ROWS = [{"text": f"行 {number}"} for number in range(40)]


def names_of(path: str | Path, cache: Path = Path("/none")) -> list[str]:
    found = find_sources(Data(train=[Source(path=str(path))]), cache)
    return [os.path.relpath(source.address, path) for source in found]


def touch(folder: Path, *names: str, content: str = '{"text": "a"}\n') -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_a_folder_is_all_its_files_by_name(tmp_path: Path):
    touch(tmp_path, "b.jsonl", "a/z.txt.zst", "a/c.JSONL.gz", "10.csv", "9.tsv", "a.ndjson")
    touch(tmp_path, ".hidden.jsonl", ".git/a.jsonl", "_SUCCESS", "b.jsonl.crc", "notes.docx")
    touch(tmp_path, "README.md", "a/LICENSE.txt", "dataset_infos.json", "readme_too.md")
    touch(tmp_path, "part-0.jsonl", content="")
    # Links are followed, but not around, and not to what is there anyhow.
    touch(tmp_path.with_name(f"{tmp_path.name}_too"), "d.json")
    (tmp_path / "elsewhere").symlink_to(f"{tmp_path}_too")
    (tmp_path / "z_too").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "around").symlink_to(tmp_path)
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert names_of(tmp_path) == [
        "10.csv",
        "9.tsv",
        "a.ndjson",
        "a/c.JSONL.gz",
        "a/z.txt.zst",
        "b.jsonl",
        "elsewhere/d.json",
        "readme_too.md",
    ]


def test_a_name_that_is_no_text_is_told(tmp_path: Path):
    """As an archive from another system leaves names in GBK; they could not be written down."""
    touch(tmp_path, "a.jsonl")
    name = os.fsencode(tmp_path) + "/你好".encode("gbk")
    Path(os.fsdecode(name + b".docx")).write_text("of no known kind")
    assert names_of(tmp_path) == ["a.jsonl"]
    Path(os.fsdecode(name + b".jsonl")).write_text('{"text": "a"}')
    with pytest.raises(DataError, match=r"data.train = .*/\\udcc4\\udce3.* is not UTF-8") as error:
        names_of(tmp_path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jsonl", ["a.jsonl", "b[1].jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b[1].jsonl", "x/a.jsonl", "x/y/a.jsonl"]),
        ("x/**", ["x/a.jsonl", "x/y/a.jsonl", "x/y/c.txt"]),
        ("?/?.jsonl", ["x/a.jsonl"]),
        ("x/*/*", ["x/y/a.jsonl", "x/y/c.txt"]),
        ("*[1].jsonl", ["b[1].jsonl"]),
        ("b[1].jsonl", ["b[1].jsonl"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]):
    touch(
        tmp_path, "a.jsonl", "b[1].jsonl", "x/a.jsonl", "x/y/a.jsonl", "x/y/c.txt", "x/y/.a.jsonl"
    )
    found = find_sources(Data(train=[Source(path=f"{tmp_path}/{pattern}")]), tmp_path)
    assert [os.path.relpath(source.address, tmp_path) for source in found] == expected


def test_what_is_known_of_a_source(tmp_path: Path):
    file = write(ROWS, tmp_path, "rows.csv", ".gz")
    specs = [Source(path=str(file)), Source(path=str(tmp_path), name="all")]
    found = find_sources(Data(train=specs, held_out=[specs[0]]), tmp_path)
    assert [(one.split, one.entry, one.spec) for one in found] == [
        ("train", 0, specs[0]),
        ("train", 1, specs[1]),
        ("held_out", 0, specs[0]),
    ]
    first = found[0]
    assert (first.address, first.kind, first.compression) == (str(file), "csv", "gzip")
    assert first.bytes == file.stat().st_size
    assert digest_of(first) == hashlib.sha256(file.read_bytes()).hexdigest()
    os.utime(file, ns=(0, 5))
    again = find_sources(Data(train=specs[:1]), tmp_path)[0]
    assert again.stamp != first.stamp
    assert replace(again, stamp=first.stamp, settled=first.settled) == first


def test_names_that_stand_for_nothing(tmp_path: Path):
    touch(tmp_path, "rows.jsonl", "data/train.csv", "rows.xls", "notes/a.docx")
    touch(tmp_path, "empty.jsonl", "none/a.jsonl", "none/b.txt", "torn/b.parquet", content="")
    touch(tmp_path, "torn/a.jsonl")
    for name, said in [
        ("row.jsonl", f"there is no such file. Did you mean {tmp_path}/rows.jsonl?"),
        ("date/train.csv", f"there is no such file. Did you mean {tmp_path}/data?"),
        ("data/trian.csv", f"there is no such file. Did you mean {tmp_path}/data/train.csv?"),
        ("zzzzz", "there is no such file."),
        ("rows.jsonl/a", "there is no such file."),
        ("*.parquet", "no file has such a name."),
        ("date/*.csv", "no file has such a name."),
        ("row?.jsonl.gz", f"no file has such a name. There is {tmp_path}/rows.jsonl"),
        ("empty.jsonl", "the file is empty"),
        ("rows.xls", "unknown kind of file '.xls'; known: .jsonl, .ndjson,"),
        ("notes", "the folder holds no file of .jsonl, .ndjson,"),
        ("none", f"empty files in the folder: {tmp_path}/none/a.jsonl, {tmp_path}/none/b.txt."),
        ("torn", f"empty files in the folder: {tmp_path}/torn/b.parquet. Copy them again"),
    ]:
        with pytest.raises(DataError) as error:
            find_sources(Data(train=[Source(path=f"{tmp_path}/{name}")]), tmp_path)
        assert str(error.value).startswith(f"data.train = {tmp_path}/{name}: {said}")
    for name, said in [
        ("sample:movies/a.jsonl", "the sample is not there yet. Get it with: shoal samples movies"),
        ("foo://bucket/a.jsonl", "no filesystem is known by foo://"),
        ("oss://bucket/a.jsonl", "cannot be opened here: "),
    ]:
        with pytest.raises(DataError) as error:
            find_sources(Data(held_out=[Source(path=name)], train=[]), tmp_path)
        assert said in str(error.value)
        assert "\n" not in str(error.value)


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Root may read all, so the kernel's answer is made."""
    touch(tmp_path, "rows.jsonl")
    [source] = find_sources(Data(train=[Source(path=str(tmp_path))]), tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"rows.jsonl: may not be read. Check the rights"):
        digest_of(source)
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(DataError, match=r"data.train = .*rows.jsonl: may not be read. Check the"):
        find_sources(Data(train=[Source(path=f"{tmp_path}/rows.jsonl")]), tmp_path)


def save_to_disk(folder: Path, parts: int = 2, **state: object) -> None:
    """As `datasets.save_to_disk` leaves rows: files in an order that is not that of their names."""
    folder.mkdir(parents=True)
    names = [f"data-{parts - number}-of-{parts}.arrow" for number in range(parts)]
    size = len(ROWS) // parts
    for number, name in enumerate(names):
        table = pa.Table.from_pylist(ROWS[number * size : (number + 1) * size])
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=6)
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None} | state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def test_a_dataset_that_was_saved_to_disk(tmp_path: Path):
    save_to_disk(tmp_path / "all" / "train")
    save_to_disk(tmp_path / "all" / "test", parts=1)
    touch(tmp_path / "all" / "train", "cache-1234.arrow", "old.jsonl")
    for unit_bytes in (1, 500, 10**6):
        assert columns_of(read_all(f"{tmp_path}/all/train", unit_bytes=unit_bytes)) == ROWS
    splits = {"splits": ["train", "test"]}
    (tmp_path / "all" / "dataset_dict.json").write_text(json.dumps(splits))
    with pytest.raises(DataError) as error:
        read_all(f"{tmp_path}/all")
    assert str(error.value) == (
        f"data.train = {tmp_path}/all: holds a dataset of several splits. "
        f"Name one: {tmp_path}/all/train or {tmp_path}/all/test"
    )
    save_to_disk(tmp_path / "chosen", _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(DataError, match=r"rows are chosen by an index. Call flatten_indices"):
        read_all(f"{tmp_path}/chosen")
    (tmp_path / "all" / "test" / "data-1-of-1.arrow").unlink()
    with pytest.raises(DataError, match=r"data-1-of-1.arrow, which state.json names, is not there"):
        read_all(f"{tmp_path}/all/test")
    for name in ("all/dataset_dict.json", "chosen/state.json"):
        for content in ("{", "{}", "[]"):
            (tmp_path / name).write_text(content)
            with pytest.raises(DataError, match=f"{Path(name).name} is not as datasets writes it"):
                read_all(str((tmp_path / name).parent))


def _on_s3(address: str, content: bytes) -> None:
    from adapters.object_store import ObjectStore

    folder, _, name = address.rpartition("/")
    ObjectStore(folder).put(name, content)


def _in_memory(address: str, content: bytes) -> None:
    import fsspec

    with fsspec.open(address, "wb") as stream:
        stream.write(content)


Place = tuple[str, Callable[[str, bytes], None]]


@pytest.fixture(params=["s3", "memory"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, Callable[[str, bytes], None]]:
    """The address of a folder elsewhere, and what puts a file there."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/rows/of all", _on_s3
    return f"memory://{tmp_path.name}/rows/of all", _in_memory


def test_files_that_lie_elsewhere(tmp_path: Path, place: Place):
    folder, put = place
    files = [
        write(ROWS, tmp_path, "rows.jsonl"),
        write(ROWS, tmp_path, "rows.parquet"),
        write(ROWS, tmp_path, "rows.csv", ".gz"),
        write(ROWS, tmp_path, "rows.json", ".zst"),
        write(ROWS, tmp_path, "rows.feather"),
        write(ROWS, tmp_path, "rows.arrow"),
        write(ROWS, tmp_path, "rows.parquet", ".gz"),
    ]
    write(ROWS, tmp_path, "rows.parquet")
    for number, file in enumerate(files):
        put(f"{folder}/{number}/{file.name}", file.read_bytes())
        for unit_bytes in (100, 10**6):
            found = read_all(f"{folder}/{number}/{file.name}", unit_bytes=unit_bytes)
            assert columns_of(found) == ROWS, file.name
    put(f"{folder}/.hidden/a.jsonl", b"{}")
    assert columns_of(read_all(folder)) == ROWS * len(files)
    assert columns_of(read_all(f"{folder}/")) == ROWS * len(files)
    assert columns_of(read_all(f"{folder}/**/rows.parquet")) == ROWS
    assert columns_of(read_all(f"{folder}/?/*.gz")) == ROWS * 2
    [source] = find_sources(Data(train=[Source(path=f"{folder}/0/rows.jsonl")]), tmp_path)
    assert source.address == f"{folder}/0/rows.jsonl"
    content = files[0].read_bytes()
    assert (source.bytes, digest_of(source)) == (len(content), hashlib.sha256(content).hexdigest())
    put(source.address, content + b"\n")
    [again] = find_sources(Data(train=[source.spec]), tmp_path)
    assert again.stamp != source.stamp
    for name, said in [
        ("0/row.jsonl", f"there is no such file. Did you mean {folder}/0/rows.jsonl?"),
        ("00/rows.jsonl", "there is no such file."),
        ("*.txt", "no file has such a name."),
    ]:
        with pytest.raises(DataError) as error:
            read_all(f"{folder}/{name}")
        assert str(error.value).startswith(f"data.train = {folder}/{name}: {said}")


def test_a_saved_dataset_in_a_bucket(tmp_path: Path, bucket: str):
    save_to_disk(tmp_path / "train")
    for file in (tmp_path / "train").iterdir():
        _on_s3(f"{bucket}/train/{file.name}", file.read_bytes())
    assert columns_of(read_all(f"{bucket}/train", unit_bytes=1)) == ROWS


def test_stores_that_do_not_answer(bucket: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"s3://nobody-made-this/a.jsonl: there is no such file"):
        read_all("s3://nobody-made-this/a.jsonl")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(places, "_ATTEMPTS", 1)
    with pytest.raises(DataError) as error:
        read_all(f"{bucket}/a.jsonl")
    assert str(error.value).startswith(f"data.train = {bucket}/a.jsonl: http://127.0.0.1:9 cannot ")
