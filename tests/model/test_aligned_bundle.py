"""A bundle with alignment heads, from its files to its vectors."""

import numpy as np
import pytest

from polymodal.model import load_bundle


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_bundle_with_alignment_heads_classifies_as_before_and_embeds_in_both_spaces(
    aligned_bundle, tiny_bundle, runtime
):
    aligned, plain = (load_bundle(bundle, runtime=runtime, threads=1) for bundle in (aligned_bundle, tiny_bundle))
    aligned.warm_up()
    assert aligned.description.spaces == {"aligned": 16, **plain.description.spaces}
    assert list(aligned.description.matches) == ["image~text"]
    samples = [aligned.prepare({"text": "ripe fruit, red"})]
    assert aligned.predict(samples)[0].scores == pytest.approx(plain.predict(samples)[0].scores, abs=1e-5)
    embeddings = aligned.embed(samples)
    assert aligned.vectors(embeddings, "aligned")["text"].shape == (1, 16)
    own = aligned.vectors(embeddings, "classifier")["text"]
    np.testing.assert_allclose(own, plain.embed(samples)["text"], atol=1e-5)
