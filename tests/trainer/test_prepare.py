"""From options to a spec and back, and results in the class that the job began with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from market.cli import build_app
from market.protocol.errors import InvalidBlob, InvalidSpec, MarketError
from market.protocol.program import TensorRole
from market.protocol.spec import decode_spec
from market.storage.blobs import BlobStore
from tests.e2e.conftest import TERMS
from trainer.execution import Executor
from trainer.jobs import Schedule, fetch_job
from trainer.lower.muon import Muon
from trainer.models import Llama
from trainer.prepare import Recipe, find_recipe, prepare_job, read_recipe
from trainer.results import load_result
from trainer.shards import ShardTask, run_segment
from trainer.states import compute_named_tensor_root
from verifier.commands.replay import ModelFile, write_model
from verifier.receipt import compute_file_root

APP = build_app()
SCHEDULE = Schedule(rounds=1, slots=1, segments=2, steps_per_segment=2)
SMALL = ["--rounds", "1", "--slots", "1", "--segments", "2", "--steps", "2", "--batch", "4"]
MLP = Recipe("mlp-tiny", 4, 3e-3, 1, SCHEDULE)  # 64 inputs, 10 classes


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("TOUCHSTONE_DATA_DIR", str(tmp_path / "home"))
    return BlobStore(tmp_path / "home/blobs", 2**34)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    store = BlobStore(tmp_path_factory.mktemp("store"), 2**34)
    return prepare_job(store, "job", MLP, make_rows(), TERMS)


def init(tmp_path, *options):
    out = tmp_path / "spec.json"
    arguments = ["job", "init", "--out", str(out), *SMALL, *map(str, options), "--json"]
    result = CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return decode_spec(out.read_bytes()), json.loads(result.stdout)


def train(files):
    """Return the base after a segment, and its losses."""
    steps = files.spec.steps_per_segment
    task = ShardTask(files.program, files.dataset, 5, 0, 0, steps)
    end = run_segment(Executor(files.program), task, files.initial, 0)
    names = files.program.find_inputs(TensorRole.BASE)
    return {name: end.state[name] for name in names}, end.metrics[:, 0].tolist()


def make_rows(classes=10, count=60):
    noise = np.random.default_rng(0)
    table = noise.integers(0, 256, (count, 65)).astype(np.uint8)
    table[:, -1] = noise.integers(0, classes, count)
    return torch.tensor(table)


def write_rows(path, **options):
    np.save(path, make_rows(**options).numpy())
    return path


# Recipes


def test_a_recipe_reads_back_from_its_spec(spec):
    other = replace(MLP, optimizer="sgd", micro_batches=2, bits="14", length=8, seed=3, adapted="1")

    assert read_recipe(spec) == MLP
    assert read_recipe(spec.model_copy(update={"model": other.describe()})) == other


@pytest.mark.parametrize(
    "model",
    [
        "llama tiny",
        "[]",
        "{}",
        "[" * 4000,
        '{"model": "tiny", "batch": "4", "learning_rate": 0.1, "warmup_steps": 0}',
        '{"model": "tiny", "batch": 4, "learning_rate": 0.1, "warmup_steps": 0, "else": 1}',
    ],
)
def test_a_spec_that_describes_its_model_in_another_way_has_no_recipe(spec, model):
    other = spec.model_copy(update={"model": model})

    assert find_recipe(other) is None
    with pytest.raises(InvalidSpec, match="describes no recipe"):
        read_recipe(other)


# The command


def test_without_options_the_job_is_the_preset_on_the_library(store, tmp_path):
    spec, made = init(tmp_path, "--preset", "tiny", "--limit", 400_000)

    recipe, files = read_recipe(spec), fetch_job(store, spec)
    built = recipe.build_model()
    assert recipe == Recipe("tiny", 4, 3e-3, 10, SCHEDULE)
    assert isinstance(built, Llama)
    assert all(torch.equal(files.initial[n], p) for n, p in built.named_parameters())
    assert files.dataset.dtype == torch.uint8
    assert len(files.dataset) == made["training_tokens"]
    assert made["training_tokens"] + made["held_out_tokens"] == 400_000


def write_documents(path):
    line = json.dumps({"text": "a small text of " + "many words, " * 100})
    path.write_text((line + "\n") * 600)
    return path


def write_config(folder):
    folder.mkdir()
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **sizes, **heads}))
    return folder


def test_a_folder_a_tokenizer_and_documents_become_a_job(store, tmp_path):
    documents = write_documents(tmp_path / "documents.jsonl")
    tokenizer, held_out = tmp_path / "tokenizer.json", tmp_path / "held-out"
    arguments = ["--field", "text", "--vocab", "300", "--out", str(tokenizer)]
    learned = CliRunner().invoke(APP, ["job", "tokenizer", str(documents), *arguments])
    assert learned.exit_code == 0, learned.output

    data = ["--dataset", documents, "--field", "text", "--tokenizer", tokenizer]
    options = ["--length", 8, "--bits", "weight=14", "--held-out", held_out]
    spec, made = init(tmp_path, "--model", write_config(tmp_path / "model"), *data, *options)

    files = fetch_job(store, spec)
    assert files.dataset.dtype == torch.int16
    assert 256 < int(files.dataset.max()) < 300
    assert held_out.stat().st_size == 2 * made["held_out_tokens"]
    assert {t.type.bits for t in files.program.tensors} == {0, 14, 16}
    _, losses = train(files)
    assert losses[0] == pytest.approx(np.log(300), rel=0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_rows_and_a_classifier_become_a_job(store, tmp_path, optimizer):
    rows = write_rows(tmp_path / "rows.npy")

    named = ["--model", "mlp-tiny", "--dataset", rows]
    spec, made = init(tmp_path, *named, "--optimizer", optimizer, "--micro-batches", 2)

    files = fetch_job(store, spec)
    _, losses = train(files)
    assert made["training_tokens"] == 57
    assert files.dataset.shape == (57, 65)
    assert read_recipe(spec).learning_rate == (0.1 if optimizer == "sgd" else 3e-3)
    assert 1 < losses[0] < 5


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--optimizer", "adam"], "no optimizer 'adam': one of adamw, sgd, muon"),
        (["--micro-batches", "3"], "a batch of 4 rows has no 3 equal parts"),
        (["--bits", "7"], "7 bits"),
        (["--bits", "weights=14"], "'weights=14'"),
        (["--length", "17"], "a context of 17 tokens: 1 to 16 for tiny"),
        (["--model", "resnet-tiny"], "resnet-tiny takes rows and their classes"),
        (["--field", "text"], "are for a dataset"),
        (["--adapt", "nothing"], "no layer called 'nothing'"),
    ],
)
def test_options_that_make_no_job_are_refused_and_nothing_is_kept(tmp_path, options, fault):
    before = set(tmp_path.rglob("*"))

    with pytest.raises(MarketError, match=fault):
        init(tmp_path, "--preset", "tiny", "--limit", "200000", *options)

    assert {path for path in set(tmp_path.rglob("*")) - before if path.is_file()} == set()


@pytest.mark.usefixtures("store")
def test_a_class_that_the_model_lacks_is_refused_before_there_is_a_job(tmp_path):
    rows = write_rows(tmp_path / "rows.npy", classes=11, count=200)

    with pytest.raises(InvalidSpec, match=r"has the class 10, out of 10"):
        init(tmp_path, "--model", "mlp-tiny", "--dataset", rows)

    assert not (tmp_path / "spec.json").exists()


def test_muon_turns_the_hidden_matrices_alone():
    recipe = replace(MLP, model="tiny", optimizer="muon")

    rule = recipe.build_rule(recipe.build_model())

    assert isinstance(rule, Muon)
    assert len(rule.hidden) == 2 * 7
    assert not any(part in name for name in rule.hidden for part in ("embedding", "head", "norm"))


# Results


@pytest.fixture
def tied(store):
    """A job of a model whose head is its embedding."""
    recipe = Recipe("gpt2-tiny", 2, 3e-3, 1, SCHEDULE, length=4)
    tokens = torch.randint(0, 256, (999,), generator=torch.Generator().manual_seed(1)).byte()
    return fetch_job(store, prepare_job(store, "job", recipe, tokens, TERMS))


def test_a_result_loads_back_into_its_class_and_only_that_one_verifies(tied, tmp_path):
    base, _ = train(tied)
    path = tmp_path / "model.safetensors"

    write_model(tied.spec, base, ModelFile(path, None, merge=False))

    loaded, tensors = read_recipe(tied.spec).build_model(), load_file(path)
    loaded.load_state_dict(tensors, strict=True)
    assert all(torch.equal(p, base[name]) for name, p in loaded.named_parameters())
    root = compute_named_tensor_root(tied.program.find_inputs(TensorRole.BASE), base)
    assert compute_file_root(tied, path) == root
    for change in ({"lm_head.weight": tensors["lm_head.weight"] + 1}, {"more": torch.zeros(2)}):
        save_file({**tensors, **change}, path)
        with pytest.raises(InvalidBlob, match="other tensors"):
            compute_file_root(tied, path)


def test_adapters_train_alone_and_merge_into_the_class(store, tmp_path):
    recipe = replace(MLP, adapted="1", rank=2, learning_rate=0.1)
    files = fetch_job(store, prepare_job(store, "job", recipe, make_rows(), TERMS))
    base, _ = train(files)
    path = tmp_path / "model.safetensors"

    write_model(files.spec, base, ModelFile(path, None, merge=True))

    changed = {name for name in base if not torch.equal(base[name], files.initial[name])}
    plain = MLP.build_model()
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    load_result(plain, path)
    assert changed == {"1.lora_a", "1.lora_b"}
    assert {n for n, p in plain.named_parameters() if not torch.equal(p, before[n])} == {"1.weight"}


def test_a_job_without_a_recipe_gives_its_tensors_and_nothing_more(spec, tmp_path):
    other = spec.model_copy(update={"model": "something else"})
    path = tmp_path / "model.safetensors"

    write_model(other, {"w": torch.ones(2)}, ModelFile(path, None, merge=False))

    assert list(load_file(path)) == ["w"]
    with pytest.raises(InvalidSpec, match="does not say how its model is made"):
        write_model(other, {"w": torch.ones(2)}, ModelFile(path, None, merge=True))
