"""All settings of the service: read from the environment once, and validated before the port opens."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, PositiveInt, ValidationError, create_model, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from polymodal.app.access.addresses import Network, parse_networks
from polymodal.app.access.keys import KeysError, read_keys
from polymodal.app.access.rates import Rate
from polymodal.app.cpus import Plan, default_plan, read_plan
from polymodal.cores import available_cpus
from polymodal.model import MODALITIES, Modality

PREFIX = "POLYMODAL_"
DIALECTS = ("openai", "tei", "cohere")
"""APIs of others whose routes the service may offer."""
NO_DIALECTS = "none"
KIB, MIB = 1024, 1024 * 1024

MEMORY = "memory://"
_REDIS = re.compile(r"rediss?://([^\s@/?#]*@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9]{1,4})?")
_ORIGIN = re.compile(r"https?://[^\s/?#,@]+")
_URL_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


Base = TypeVar("Base", bound=BaseSettings)


class SettingsError(Exception):
    """Invalid settings: one line for each problem, with its variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class BundleSource:
    """One model to serve: the name that clients use, and the folder of its bundle."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class IndexSource:
    """One search index: the name that clients use, and its folder."""

    name: str
    path: Path


def embedded_bundle(name: str = "illustrations") -> BundleSource:
    """Return the source of a bundle in the installed package."""
    return BundleSource(name, Path(str(files("polymodal.model"))) / "bundles" / name)


def _sources(value: object, source_of: Callable[[str], BundleSource | IndexSource], what: str) -> object:
    """Parse `path` or `name=path`, separated by commas; without a name, the folder's name is used."""
    if not isinstance(value, str):
        return value
    try:
        sources = tuple(source_of(entry.strip()) for entry in value.split(",") if entry.strip())
    except (OSError, RuntimeError) as problem:  # a name that is too long, a ~user that does not exist
        raise ValueError(f"names what can't be a folder: {problem}"[:200]) from problem
    if not sources:
        raise ValueError(f"names no {what}; allowed: path or name=path, separated by commas")
    names = [source.name for source in sources]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"gives the name {', '.join(repeated)} twice; allowed: each name once")
    return sources


def _bundle_sources(value: object) -> object:
    return _sources(value, _bundle_source, "bundle")


def _index_sources(value: object) -> object:
    return _sources(value, lambda entry: IndexSource(*_named_folder(entry, "polymodal index build")), "index")


def _bundle_source(entry: str) -> BundleSource:
    if (
        "=" not in entry
        and not Path(entry).expanduser().exists()
        and (embedded := embedded_bundle(entry)).path.is_dir()
    ):
        return embedded
    return BundleSource(*_named_folder(entry, "polymodal train"))


def _named_folder(entry: str, command: str) -> tuple[str, Path]:
    """Return name and folder of `path` or `name=path`; `command` writes such folders."""
    name, separator, folder = entry.rpartition("=")
    path = Path(folder).expanduser().absolute()
    name = name.strip() if separator else path.name
    if not _URL_SAFE.fullmatch(name):
        raise ValueError(f"the name {name!r}; allowed: up to 64 letters, digits, '.', '_' and '-'")
    if not path.is_dir():
        raise ValueError(f"{folder.strip()} is not a folder; allowed: a folder written by `{command}`")
    return name, path


def _plan(value: object) -> object:
    try:
        return read_plan(Path(value).expanduser()) if isinstance(value, str) else value
    except RuntimeError as problem:  # a ~user that does not exist
        raise ValueError(str(problem)) from problem


def planned(data: Mapping[str, Any]) -> Plan:
    """Return the measured plan unless another number of workers is set; else the default plan for the available cores."""
    measured: Plan | None = data.get("plan")
    workers: int | None = data.get("workers")
    if measured and workers in (None, measured.workers):
        return measured
    return default_plan(available_cpus(), workers)


def _keys_file(value: object) -> object:
    """Return the file's absolute path, after validating its content, so that the service doesn't start with a broken file."""
    path = Path(value).expanduser().absolute() if isinstance(value, str) else value
    if isinstance(path, Path):
        try:
            read_keys(path)
        except KeysError as problem:
            raise ValueError(str(problem)) from None
    return path


def _rate(value: object) -> object:
    return Rate.parse(value) if isinstance(value, str) else value


def _networks(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


def _origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    origins = tuple(entry.strip().rstrip("/").lower() for entry in value.split(",") if entry.strip())
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r}; allowed: https://host or https://host:port, with commas between, or *")
    return origins


def _dialects(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(dict.fromkeys(entry.strip().lower() for entry in value.split(",") if entry.strip()))
    if names == (NO_DIALECTS,):
        return ()
    if unknown := [name for name in names if name not in DIALECTS]:
        raise ValueError(f"{unknown[0]!r}; allowed: {', '.join(DIALECTS)}, with commas between, or {NO_DIALECTS}")
    return names


def _rate_limit_storage(value: object) -> object:
    if value == MEMORY or not isinstance(value, str):
        return value
    if not _REDIS.fullmatch(value):
        raise ValueError(
            f"an unknown storage; allowed: {MEMORY}, redis://user:password@host:port/number, or rediss for TLS"
        )
    if missing := [package for package in ("limits", "redis") if find_spec(package) is None]:
        raise ValueError(f"the package {missing[0]} is not installed; pip install 'polymodal[redis]' brings it")
    return value


KeysPath = Annotated[Path | None, BeforeValidator(_keys_file)]
RateLimit = Annotated[Rate | None, NoDecode, BeforeValidator(_rate)]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]
Dialects = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_dialects)]
TunedPlan = Annotated[Plan | None, NoDecode, BeforeValidator(_plan)]
Bundles = Annotated[tuple[BundleSource, ...], NoDecode, BeforeValidator(_bundle_sources)]
Indexes = Annotated[tuple[IndexSource, ...], NoDecode, BeforeValidator(_index_sources)]


def limit_of(modality: str) -> str:
    """Return the name of the field that limits the bytes of one input."""
    return f"max_{modality}_bytes"


def _with_limits(base: type[Base]) -> type[Base]:
    """Add `max_MODALITY_bytes` for each entry of MODALITIES."""

    def limit(modality: Modality) -> Any:  # noqa: ANN401 — a field's type and its default
        what = "text in UTF-8" if modality.textual else f"{modality.name} file"
        about = f"Bytes of one {what}, not more than max_body_bytes."
        return PositiveInt, Field(modality.max_bytes, description=about)

    limits = {limit_of(name): limit(modality) for name, modality in MODALITIES.items()}
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, __module__=base.__module__, **limits)


@_with_limits
class Settings(BaseSettings):
    """The whole configuration of the service; `POLYMODAL_` before a field's name is its variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=False,
    )

    host: str = Field("127.0.0.1", min_length=1)
    """Address to listen on; 0.0.0.0 for every network the machine is in."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and logs it."""

    bundles: Bundles = Field(default_factory=lambda: (embedded_bundle(),), min_length=1)
    """Models to serve, as path or name=path separated by commas; the first is the default model."""
    indexes: Indexes = ()
    """Indexes to search, as path or name=path separated by commas, written by `polymodal index build`; read at the start."""
    runtime: Literal["auto", "onnx-int8", "onnx", "torch"] = "auto"
    """What executes the models: ONNX Runtime (CPU) in 8 bits or in float32, PyTorch, or auto: the fastest that suits a bundle."""

    plan: TunedPlan = None
    """File written by `polymodal tune`, with measured numbers of workers, threads and items; other settings override it."""
    workers: int = Field(default_factory=lambda data: planned(data).workers, ge=0, le=256)
    """Processes that compute, each with its own models; by default one for each core, at most 8. 0: a thread of the service."""
    inference_threads: int = Field(default_factory=lambda data: planned(data).threads, ge=1, le=1024)
    """Threads of one batch; by default the available cores, divided between the workers."""

    slow_workers: int = Field(1, ge=1, le=64)
    """Processes in addition, for models whose items take seconds (speech): nothing else waits for them."""

    max_batch_items: int = Field(default_factory=lambda data: planned(data).batch_items, ge=1, le=4096)
    """Items computed together at most."""
    max_batch_ms: float = Field(250.0, gt=0, le=600_000, allow_inf_nan=False)
    """Milliseconds that a batch may be predicted to take; an item that takes longer is computed alone."""
    queue_limit: int = Field(64, ge=1, le=100_000)
    """Items that may wait for each model; one more is refused at once rather than served late."""
    max_batch_request_items: int = Field(64, ge=1, le=10_000)
    """Items that one request to /v1/classify/batch may carry."""

    embedding_cache_bytes: int = Field(0, ge=0)
    """Bytes of memory for embeddings of inputs, reused when the same bytes come again; 0 keeps none."""

    request_timeout_ms: int = Field(10_000, ge=1, le=600_000)
    """Milliseconds from a request being read to its answer; later it is refused with 504."""
    slow_request_timeout_ms: int = Field(300_000, ge=1, le=3_600_000)
    """The same for models whose items take seconds (speech)."""
    body_timeout_ms: int = Field(30_000, ge=1, le=600_000)
    """Milliseconds that a client may take to send a request's body, and again to take its answer."""
    stall_timeout_ms: int = Field(10_000, ge=100, le=3_600_000)
    """Milliseconds of a batch beyond 8 times its prediction after which its worker is killed; of a thread, /livez fails."""
    drain_timeout_s: int = Field(20, ge=0, le=3600)
    """Seconds that accepted requests get to finish after SIGTERM."""

    max_body_bytes: PositiveInt = 20 * MIB
    """Bytes of a whole request body; an image in JSON grows by a third through base64."""
    max_inflight_bytes: PositiveInt = 256 * MIB
    """Bytes of all bodies that are being read or computed at one time; a request that would exceed them is refused with 429."""

    max_connections: int = Field(1000, ge=1, le=1_000_000)
    """Connections at one time; for one more, the one without a request for longest is closed."""
    max_head_bytes: int = Field(32 * KIB, ge=1024, le=MIB)
    """Bytes of a request's first line and header fields."""
    head_timeout_ms: int = Field(10_000, ge=100, le=600_000)
    """Milliseconds that a client may take to send a request's first line and header fields."""
    keep_alive_s: int = Field(75, ge=1, le=3600)
    """Seconds that a connection stays open after an answer; longer than clients and proxies keep it, which may reuse it late."""
    api_keys_file: KeysPath = None
    """File of API keys (`polymodal keys add`); with it, all but the probes and the page needs one. Read again when it changes."""
    require_api_keys: bool = False
    """Refuse to start without api_keys_file."""
    rate_limit_per_key: RateLimit = None
    """Requests, and items of batches, that one key may send: 600/minute, 10000/day, 100/10seconds."""
    rate_limit_per_address: RateLimit = None
    """The same for one address, with or without a key; an IPv6 address counts with its whole /64."""
    rate_limit_storage: Annotated[str, BeforeValidator(_rate_limit_storage)] = Field(MEMORY, repr=False)
    """Where requests are counted: memory:// for this process, redis://host:port/0 for several (needs the extra redis)."""
    trusted_proxies: Networks = ()
    """Addresses and networks of proxies whose X-Forwarded-For is believed, separated by commas."""
    cors_origins: Origins = ()
    """Origins whose pages may read answers, such as https://app.example, separated by commas; * for all."""
    dialects: Dialects = DIALECTS
    """APIs of others whose clients may use the service, with commas between: openai, tei, cohere; none for no such route."""
    docs: bool = True
    """Offer /docs and /openapi.json."""
    admin_host: str = Field("127.0.0.1", min_length=1)
    """Address of the admin port; on a loopback address it requires no keys."""
    admin_port: int | None = Field(None, ge=0, le=65535)
    """Admin port, for /metrics, /docs and /openapi.json, which the main port then lacks, and the probes; 0 takes a free one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log lines to write; probes and scrapes are logged at debug."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """JSON lines or coloured text; auto writes text to a terminal and JSON to anything else."""
    revision: str = Field("", pattern=r"^[0-9A-Za-z._+-]{0,64}$")
    """Revision of the source, for polymodal_build_info; set when a container image is built."""

    def max_input_bytes(self, modality: str) -> int:
        """Return the most bytes that one input of a modality may have."""
        limit: int = getattr(self, limit_of(modality))
        return limit

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the arguments: `load_settings` reads the environment, so that `Settings()` in a test has the defaults."""
        return (init_settings,)

    @model_validator(mode="after")
    def _inputs_fit_into_the_body(self) -> Self:
        for name in MODALITIES:
            if (limit := self.max_input_bytes(name)) > self.max_body_bytes:
                raise ValueError(
                    f"{variable(limit_of(name))}={limit} exceeds {variable('max_body_bytes')}={self.max_body_bytes}; "
                    "allowed: an input no larger than the body"
                )
        if self.max_inflight_bytes < self.max_body_bytes:
            raise ValueError(
                f"{variable('max_inflight_bytes')}={self.max_inflight_bytes} is less than "
                f"{variable('max_body_bytes')}={self.max_body_bytes}; allowed: at least one whole body"
            )
        return self

    @model_validator(mode="after")
    def _access_is_consistent(self) -> Self:
        if self.require_api_keys and self.api_keys_file is None:
            raise ValueError(
                f"{variable('require_api_keys')}=true, but {variable('api_keys_file')} is not set; "
                "allowed: a file written by `polymodal keys add`"
            )
        if self.rate_limit_per_key and self.api_keys_file is None:
            raise ValueError(
                f"{variable('rate_limit_per_key')} without {variable('api_keys_file')}; "
                f"allowed: with keys, or {variable('rate_limit_per_address')}"
            )
        if self.admin_port and self.admin_port == self.port:
            raise ValueError(f"{variable('admin_port')}={self.admin_port} is the first port; allowed: another one")
        return self


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings of an environment; an empty value counts as unset.

    Raises SettingsError with every problem, unknown POLYMODAL_ variables included, as a misspelt limit would not apply.
    """
    values = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX) and value}
    known = {variable(field) for field in Settings.model_fields}
    problems = [_unknown(name, known) for name in sorted(values) if name.upper() not in known]
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in values.items()}
    try:
        settings = Settings(**source())
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A default that is derived from a wrong value is not a problem of its own.
        problems += [_explained(entry, values) for entry in errors if entry["type"] != "default_factory_not_called"]
    if problems:
        raise SettingsError(problems)
    return settings


def _unknown(name: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(name.upper(), known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _explained(problem: Mapping[str, Any], values: Mapping[str, str]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = variable(str(problem["loc"][0]))
    field = Settings.model_fields.get(str(problem["loc"][0]))
    value = (
        values.get(name, "") if field is None or field.repr else "…"
    )  # the address of Redis may contain its password
    return f"{name}={value}: {message}"
