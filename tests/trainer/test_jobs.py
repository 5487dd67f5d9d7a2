import pytest

from market.protocol.errors import InvalidSpec
from market.storage.blobs import BlobStore
from tests.e2e.conftest import STORE_BYTES, TERMS
from tests.trainer.tiny_job import SCHEDULE, build_tiny_job
from trainer.jobs import fetch_spec, publish_job


def test_nobody_works_by_a_document_that_is_not_the_posted_specs(tmp_path):
    store = BlobStore(tmp_path, STORE_BYTES)
    spec = publish_job(store, schedule=SCHEDULE, terms=TERMS, **build_tiny_job())
    digest = spec.leaf_values[7]

    assert fetch_spec(store, digest, spec.spec_hash) == spec
    with pytest.raises(InvalidSpec, match="the document's spec hash"):
        fetch_spec(store, digest, digest)
