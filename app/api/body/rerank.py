"""The body of POST /rerank, /v1/rerank and /v2/rerank, as the clients of TEI, Cohere, Jina and infinity write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from polymodal.app.api.body.json import Fault, inputs_of, text_of, validated
from polymodal.app.api.body.problems import TooManyItems, shown
from polymodal.app.api.schemas import Example, ModelChoice
from polymodal.app.problems import RequestError
from polymodal.app.settings import Settings
from polymodal.model import MODALITIES, Count, InputError, Inputs, InvalidParameter, NothingGiven

MOST_DOCUMENTS: Final = 1000
_TEXT: Final = next(name for name, modality in MODALITIES.items() if modality.textual)
_ALLOWED: Final = f"a text, or an object with {' or '.join(MODALITIES)}"
_IGNORED: Final = ("truncate", "truncation_direction", "max_tokens_per_doc", "max_chunks_per_doc", "priority")


class RerankChoice(ModelChoice):
    """The fields in addition to the query and the documents."""

    allowed: ClassVar[Mapping[str, str]] = {
        "top_n": "an integer of at least 1",
        **dict.fromkeys(("raw_scores", "return_text", "return_documents", "truncate"), "true or false"),
        "truncation_direction": "a string",
        **dict.fromkeys(("max_tokens_per_doc", "max_chunks_per_doc", "priority"), "an integer"),
    }

    top_n: Count | None = None
    """Largest number of results, best first."""
    raw_scores: bool | None = None
    """Whether scores are cosines; by default they are calibrated probabilities."""
    return_text: bool | None = None
    """Whether results have the texts; with `texts`."""
    return_documents: bool | None = None
    """Whether results have the documents; with `documents`."""
    truncate: bool | None = None
    """Accepted without effect: what is beyond the tokens that the model reads is always cut off."""
    truncation_direction: str | None = None
    """Accepted without effect."""
    max_tokens_per_doc: int | None = None
    """Accepted without effect."""
    max_chunks_per_doc: int | None = None
    """Accepted without effect."""
    priority: int | None = None
    """Accepted without effect."""


class RerankItem(Example):  # type: ignore[misc, valid-type]  # derived from the table
    """A query or a document with any of the inputs."""


class RerankBody(RerankChoice):
    """The JSON body of POST /rerank, with either `texts` or `documents`, which decide the form of the answer."""

    query: str | RerankItem
    """What the documents are compared with."""
    texts: Annotated[list[str], Field(min_length=1, max_length=MOST_DOCUMENTS)] | None = None
    """Answered with a list, as TEI does."""
    documents: Annotated[list[str | RerankItem], Field(min_length=1, max_length=MOST_DOCUMENTS)] | None = None
    """Answered with an object, as Cohere and Jina do."""


@dataclass(frozen=True, slots=True)
class ParsedRerank:
    """A parsed request, whose inputs are decoded."""

    query: Inputs
    documents: Sequence[Inputs]
    sent: Sequence[Any]
    """The documents as the client sent them."""
    field: str
    """texts or documents."""
    choice: RerankChoice
    ignored: Sequence[str]
    """Fields of the request without effect."""


def rerank_of(fields: dict[str, Any], settings: Settings) -> ParsedRerank:
    """Return the request of a body. Raises RequestError or InputError, which names the document by its index."""
    query, lists = fields.pop("query", None), {name: fields.pop(name, None) for name in ("texts", "documents")}
    choice = validated(RerankChoice, fields, known=RerankBody.model_fields)
    present = [name for name, value in lists.items() if value is not None]
    if len(present) != 1:
        raise InvalidParameter(
            "documents", "next to texts" if present else "none", "a list, as either documents or texts"
        )
    (field,) = present
    sent = lists[field]
    if isinstance(sent, Fault):
        raise sent.at(field)
    if not isinstance(sent, list) or not sent:
        raise InvalidParameter(field, shown(sent), f"a list of 1 to {MOST_DOCUMENTS:,} texts")
    if len(sent) > MOST_DOCUMENTS:
        raise TooManyItems(field, f"{len(sent):,} documents", f"up to {MOST_DOCUMENTS:,} documents")
    ignored = [name for name in _IGNORED if getattr(choice, name) is not None]
    documents = [_item(f"{field}[{index}]", item, settings) for index, item in enumerate(sent)]
    return ParsedRerank(_item("query", query, settings), documents, sent, field, choice, ignored)


def _item(place: str, item: object, settings: Settings) -> Inputs:
    if isinstance(item, Fault):
        raise item.at(place)
    try:
        if isinstance(item, str):
            return {_TEXT: text_of(_TEXT, item, settings.max_input_bytes(_TEXT))}
        if isinstance(item, dict):
            return inputs_of(validated(Example, item), settings)
    except (RequestError, InputError) as error:
        raise located(place, error) from None
    raise InvalidParameter(place, shown(item), _ALLOWED)


def located(place: str, error: RequestError | InputError) -> RequestError | InputError:
    """Return the error of a query or a document with its place in the body: documents[3]."""
    if isinstance(error, NothingGiven):
        return NothingGiven(place, "nothing, or only a blank text", "a text that shows something, or another input")
    return type(error)(place, f"{error.input}: {error.found}", str(error.allowed))
