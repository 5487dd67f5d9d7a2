"""Requesters' files: what each becomes, and which are refused, by name, place and rule."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from market.protocol.errors import DatasetUnavailable, InvalidSpec
from market.protocol.tensors import Dtype
from trainer.data import Source, choose_dtype, read_rows, read_tokens, split_held_out
from trainer.tokens import END_OF_TEXT, load_tokenizer, train_tokenizer

TEXT = "the quick brown fox\njumps over the lazy dog\n" * 40
SHAPE, CLASSES = (2, 3), 4


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer([TEXT], 300).to_str())
    return path


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def refuse(source, vocab=256):
    with pytest.raises(InvalidSpec) as caught:
        read_tokens(source, vocab)
    return str(caught.value)


# Tokens


@pytest.mark.parametrize(
    ("vocab", "dtype"),
    [
        (2, Dtype.U8),
        (256, Dtype.U8),
        (257, Dtype.I16),
        (32768, Dtype.I16),
        (32769, Dtype.I32),
        (151_936, Dtype.I32),
    ],
)
def test_a_token_takes_the_smallest_type_that_holds_the_vocabulary(vocab, dtype):
    assert choose_dtype(vocab) is dtype


def test_text_without_a_tokenizer_is_its_bytes_in_any_encoding(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"caf\xe9 \x00\xff")

    found = read_tokens(Source(path), 256)

    assert found.dtype == torch.uint8
    assert found.tolist() == list(b"caf\xe9 \x00\xff")
    assert read_tokens(Source(path, limit=3), 256).tolist() == list(b"caf")


def test_a_tokenizer_turns_text_into_its_own_numbers(tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    read = []

    found = read_tokens(Source(path, tokenizer), 300, read.append)

    loaded = load_tokenizer(tokenizer)
    assert found.dtype == torch.int16
    assert found.tolist() == loaded.encode(TEXT).ids
    assert len(found) < len(TEXT) / 2
    assert read[-1] == len(TEXT)
    assert loaded.decode(found.tolist()) == TEXT


def test_documents_end_with_the_separator(tmp_path, tokenizer):
    path = write_lines(tmp_path / "d.jsonl", {"text": "the fox"}, {"text": "a dög", "n": 1})
    loaded = load_tokenizer(tokenizer)
    end = loaded.token_to_id(END_OF_TEXT)

    in_bytes = read_tokens(Source(path, field="text"), 256)
    cut = read_tokens(Source(path, field="text", separator="|", limit=10), 256)
    in_tokens = read_tokens(Source(path, tokenizer, "text"), 300)

    assert bytes(in_bytes.tolist()).decode() == "the fox\na dög\n"
    assert bytes(cut.tolist()) == b"the fox|a "
    assert in_tokens.tolist() == [
        *loaded.encode("the fox").ids,
        end,
        *loaded.encode("a dög").ids,
        end,
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, ">u2"])
def test_an_array_of_integers_is_its_tokens(tmp_path, dtype):
    path = tmp_path / "tokens.npy"
    np.save(path, np.array([3, 1, 200], dtype=dtype))

    assert read_tokens(Source(path), 300).tolist() == [3, 1, 200]
    assert read_tokens(Source(path, limit=2), 300).dtype == torch.int16


def test_a_bin_file_is_16_bit_tokens(tmp_path):
    path = tmp_path / "tokens.bin"
    np.array([1, 50_000, 2], dtype="<u2").tofile(path)

    found = read_tokens(Source(path), 50_257)

    assert found.dtype == torch.int32
    assert found.tolist() == [1, 50_000, 2]


def test_a_safetensors_file_gives_the_tensor_that_is_named(tmp_path):
    path = tmp_path / "tokens.safetensors"
    save_file({"a": torch.tensor([1, 2]), "b": torch.tensor([3], dtype=torch.uint16)}, path)
    (only := tmp_path / "one.safetensors").write_bytes(b"")
    save_file({"a": torch.tensor([7, 8], dtype=torch.int32)}, only)

    assert read_tokens(Source(path, field="b"), 256).tolist() == [3]
    assert read_tokens(Source(only), 256).tolist() == [7, 8]
    assert "name one of its 2 tensors, not None (a, b)" in refuse(Source(path))
    assert "not 'c'" in refuse(Source(path, field="c"))


@pytest.mark.parametrize(("value", "vocab"), [(300, 300), (-1, 300), (256, 256)])
def test_a_token_out_of_the_vocabulary_is_named_with_its_place(tmp_path, value, vocab):
    path = tmp_path / "tokens.npy"
    np.save(path, np.array([5, 6, value, 7, value], dtype=np.int32))

    message = refuse(Source(path), vocab)

    assert f"token {value} at position 2 is out of the vocabulary of {vocab}" in message


def test_a_tokenizer_of_another_vocabulary_is_caught(tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)

    assert "out of the vocabulary of 256" in refuse(Source(path, tokenizer))


# Files that are refused


def test_files_that_are_no_tokens_are_refused_by_what_they_are(tmp_path):
    odd, real, table = tmp_path / "odd.bin", tmp_path / "real.npy", tmp_path / "table.npy"
    wide, empty = tmp_path / "wide.npy", tmp_path / "empty"
    odd.write_bytes(b"123")
    np.save(real, np.zeros(4, dtype=np.float32))
    np.save(table, np.zeros((2, 2), dtype=np.uint8))
    np.save(wide, np.zeros(4, dtype=np.int64))
    empty.touch()

    assert "3 bytes: a .bin file is tokens of 16 bits" in refuse(Source(odd))
    assert "float32 of shape (4,): tokens are one axis of integers" in refuse(Source(real))
    assert "uint8 of shape (2, 2): tokens are one axis" in refuse(Source(table))
    assert "int64" in refuse(Source(wide))
    assert "is empty" in refuse(Source(empty))


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    assert "no .npy file of plain numbers" in refuse(Source(path))


@pytest.mark.parametrize("name", ["tokens.npy", "tokens.safetensors"])
def test_a_truncated_or_damaged_file_is_refused(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, np.arange(200, dtype=np.uint16))
    else:
        save_file({"a": torch.arange(200, dtype=torch.int32)}, path)
    whole = path.read_bytes()

    for size in (len(whole) - 1, 100, 20, 5):
        path.write_bytes(whole[:size])
        assert "is no" in refuse(Source(path))
    path.write_bytes(b"\xff" * 9 + whole[9:])
    assert "is no" in refuse(Source(path))


def test_a_file_is_measured_before_it_is_read(tmp_path):
    path = tmp_path / "tokens.bin"
    with path.open("wb") as file:
        file.truncate(2**42)  # more than any memory; nothing of it is on the disk

    assert f"has {2**42} bytes: at most {2**34}" in refuse(Source(path))
    assert f"has {2**42} bytes: at most 1000" in refuse(Source(path, max_bytes=1000))


def test_a_file_that_cannot_be_read_is_unavailable(tmp_path):
    with pytest.raises(DatasetUnavailable, match="cannot be read"):
        read_tokens(Source(tmp_path / "absent.bin"), 256)
    with pytest.raises(DatasetUnavailable, match="cannot be read"):
        read_rows(Source(tmp_path / "absent.npy"), SHAPE, CLASSES)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"other": "x"}', "line 2 has no field 'text': it has other"),
        (b"{}", "line 2 has no field 'text': it has none"),
        (b'{"text": 5}', "line 2: the field 'text' is no text"),
        (b'["text"]', "line 2 is no JSON object"),
        (b'{"text": "x"', "line 2 is no JSON"),
        (b'{"text": "\xff"}', "line 2 is no JSON"),
        (b'{"text": "\\ud800"}', "line 2 is no JSON"),
        (b"[" * 100_000, "line 2 is no JSON"),
    ],
)
def test_a_line_without_a_document_is_named(tmp_path, line, fault):
    path = tmp_path / "documents.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")

    assert fault in refuse(Source(path, field="text"))


def test_text_that_is_not_utf8_is_refused_where_it_must_be(tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_bytes(b"a line\n" * 200_000 + b"caf\xe9\n")

    assert "byte 1400003 is 0xe9" in refuse(Source(path, tokenizer), 300)


def test_a_tokenizer_that_is_none_is_refused(tmp_path):
    path, text = tmp_path / "tokenizer.json", tmp_path / "text"
    text.write_text("text")
    for content in ("", "{}", "[1]", '{"model": {"type": "Nothing"}}'):
        path.write_text(content)
        assert "is no tokenizer" in refuse(Source(text, path))


def test_a_separator_must_be_a_token(tmp_path, tokenizer):
    path = write_lines(tmp_path / "d.jsonl", {"text": "x"})

    assert "no token '</s>'" in refuse(Source(path, tokenizer, "text", "</s>"), 300)
    assert "name the field" in refuse(Source(path))


@pytest.mark.parametrize(
    ("name", "options", "fault"),
    [
        ("x.bin", {"field": "text"}, "a field for"),
        ("x.txt", {"separator": "|"}, "a separator for"),
        ("x.npy", {"tokenizer": "t.json"}, "a tokenizer for"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, name, options, fault):
    with pytest.raises(InvalidSpec, match=fault):
        Source(tmp_path / name, **options)


def test_a_vocabulary_without_room_for_all_bytes_is_refused():
    with pytest.raises(InvalidSpec, match="at least 257"):
        train_tokenizer(["text"], 256)


# Rows


def make_table(dtype):
    noise = np.random.default_rng(0)
    table = noise.integers(0, 256, (30, 7)).astype(dtype)
    table[:, -1] = noise.integers(0, CLASSES, 30)
    return table


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_rows_are_read_as_they_are(tmp_path, dtype, suffix):
    path, table = tmp_path / f"rows.{suffix}", make_table(dtype)
    if suffix == "npy":
        np.save(path, np.asfortranarray(table))
    else:
        save_file({"rows": torch.tensor(table)}, path)

    found = read_rows(Source(path), SHAPE, CLASSES)

    assert found.numpy().dtype == dtype
    np.testing.assert_array_equal(found.numpy(), table)
    assert len(read_rows(Source(path, limit=7), SHAPE, CLASSES)) == 7


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ((3, -1), 4, "row 3 has the class 4.0, out of 4"),
        ((5, -1), -1, "row 5 has the class -1.0"),
        ((5, -1), 0.5, "row 5 has the class 0.5"),
        ((6, -1), np.nan, "row 6 has the class nan"),
        ((7, 2), np.inf, "row 7 has an element that is not finite"),
    ],
)
def test_a_row_without_a_class_of_the_model_is_named(tmp_path, place, value, fault):
    path, table = tmp_path / "rows.npy", make_table(np.float32)
    table[place] = value
    np.save(path, table)

    with pytest.raises(InvalidSpec, match=fault):
        read_rows(Source(path), SHAPE, CLASSES)


@pytest.mark.parametrize(
    "table", [np.zeros((5, 6), np.uint8), np.zeros((5, 7), np.int32), np.zeros(7, np.uint8)]
)
def test_rows_of_another_width_or_type_are_refused(tmp_path, table):
    path = tmp_path / "rows.npy"
    np.save(path, table)

    with pytest.raises(InvalidSpec, match="a row is 7 numbers"):
        read_rows(Source(path), SHAPE, CLASSES)


def test_rows_do_not_come_from_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1,2\n")

    with pytest.raises(InvalidSpec, match=r"rows are in a \.npy or"):
        read_rows(Source(path), SHAPE, CLASSES)


# What is held out


def test_one_block_of_tokens_in_twenty_is_held_out():
    tokens = torch.arange(8192 * 41 + 5, dtype=torch.int32)

    training, held_out = split_held_out(tokens)

    assert held_out.tolist() == [
        *range(8192 * 19, 8192 * 20),
        *range(8192 * 39, 8192 * 40),
    ]
    assert torch.equal(torch.cat((training, held_out)).sort().values, tokens)
    assert training.dtype == tokens.dtype


def test_one_row_in_twenty_is_held_out():
    training, held_out = split_held_out(torch.arange(100).reshape(50, 2))

    assert held_out[:, 0].tolist() == [38, 78]
    assert len(training) == 48


@pytest.mark.parametrize("data", [torch.zeros(8192 * 20 - 1), torch.zeros(19, 3)])
def test_too_little_to_hold_anything_out_is_refused(data):
    with pytest.raises(InvalidSpec, match=f"a dataset of {len(data)} (tokens|rows): at least"):
        split_held_out(data)
