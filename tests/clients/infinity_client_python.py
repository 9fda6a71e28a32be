"""Calls of infinity's client to the service's reranker."""

from infinity_client import AuthenticatedClient
from infinity_client.api.default import rerank
from infinity_client.models import RerankInput
from report import KEY, SERVICE, report

client = AuthenticatedClient(base_url=SERVICE, token=KEY)
body = RerankInput(query="red", documents=["blue", "red", "red green"], model="toy", return_documents=True, top_n=2)
answer = rerank.sync(client=client, body=body)
assert [(entry.index, entry.document) for entry in answer.results] == [
    (1, {"text": "red"}),
    (2, {"text": "red green"}),
]
assert answer.usage.total_tokens == 5
report("`rerank.sync(body=RerankInput(…, top_n=2, return_documents=True))`", "the best two documents")

raw = rerank.sync(client=client, body=RerankInput(query="red", documents=["red green"], model="toy", raw_scores=True))
assert abs(raw.results[0].relevance_score - 0.5**0.5) < 1e-5
report("`RerankInput(raw_scores=True)`", "cosines")
