"""Every setting, in one typed tree, read from the environment once at start-up.

Production (`APP_ENV=production`) refuses to start with a missing, weak or sample secret; development makes a
random one for the life of the process when none is given, so that no secret is ever a constant.
`load_settings` turns any mistake into one line that says what is wrong and how to mend it.
"""

import platform
import re
import secrets
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_MIN_SECRET_BYTES = 32
_MIN_DISTINCT_CHARACTERS = 10
_SAMPLE_SECRET = re.compile(
    r"change.?(me|this)|secret|password|example|sample|insecure|replace|your[-_]|123456|qwerty", re.IGNORECASE
)
_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._%-]+)(:[0-9]{1,5})?"
_MONGODB_URI = re.compile(
    rf"mongodb(\+srv)?://([^:@/?#]+(:[^:@/?#]*)?@)?{_HOST}(,{_HOST})*(/[^?#]*)?(\?[^#]*)?"
)
_REDIS_URL = re.compile(
    rf"rediss?://([^/?#]*@)?{_HOST}(/[0-9]*)?(\?[^#]*)?|unix://([^/?#]*@)?/[^?#]+(\?[^#]*)?"
)
_LIMIT = re.compile(r"^\s*\d+\s*(/|\s+per\s+)\s*\d*\s*(second|minute|hour|day)s?\s*$")

Tier = Literal["standard", "premium"]
LimitText = Annotated[str, Field(examples=["600/minute"])]


class SettingsError(Exception):
    """The environment can't be used; the message is one line that says what to change."""


class Settings(BaseSettings):
    """The environment, typed. Names are the variables' names in lower case."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    app_env: Literal["development", "production"] = "development"
    api_version: str = Field(default="v1", pattern=r"^v[0-9]+$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    replica_name: str = Field(default_factory=platform.node, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """What this process calls itself in X-Replica and in logs; the host's name unless set."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    drain_grace_s: float = Field(default=0.0, ge=0, le=60)
    """How long /ready answers 503 before the listener closes. 0 where something else ejects the replica
    first; 5 behind a probe.
    """
    drain_timeout_s: int = Field(default=20, ge=1, le=120)
    """How long requests that are under way may take to finish."""
    docs_enabled: bool | None = None
    """/docs and /openapi.json; unset means: on in development, off in production."""

    mongodb_uri: SecretStr = SecretStr("mongodb://127.0.0.1:27017/cargoflow")
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    db_pool_max: int = Field(default=50, ge=1, le=1000)
    db_pool_min: int = Field(default=5, ge=0, le=1000)
    mongo_timeout_s: float = Field(default=2.0, gt=0, le=30)
    redis_timeout_s: float = Field(default=1.0, ge=1, le=10)
    """Longer than a hot copy's generation lives without Redis (0.9 s); `state.hot` rests on that."""

    jwt_secret: SecretStr = SecretStr("")
    jwt_secret_previous: SecretStr = SecretStr("")
    access_token_ttl_s: int = Field(default=900, ge=30, le=3600)
    login_idle_s: int = Field(default=2 * 3600, ge=60)
    login_idle_driver_s: int = Field(default=8 * 3600, ge=60)
    login_absolute_s: int = Field(default=30 * 86400, ge=3600)
    refresh_grace_s: int = Field(default=10, ge=0, le=60)

    worker_concurrency: int = Field(default=8, ge=1, le=256)
    """How many jobs a worker runs at a time."""

    cors_origin: Annotated[tuple[str, ...], NoDecode] = ()
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    server_names: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts that MCP clients may name besides localhost and that of PUBLIC_URL."""

    limit_auth: LimitText = "5/15minutes"
    limit_auth_email: LimitText = "20/15minutes"
    limit_anonymous: LimitText = "100/minute"
    limit_standard: LimitText = "600/minute"
    limit_premium: LimitText = "3000/minute"
    limit_booking: LimitText = "10/hour"
    limit_address: LimitText = "50/hour"
    limit_chat: LimitText = "30/minute"

    chat_base_url: str = Field(default="", pattern=r"^(https?://[^\s?#]+)?$")
    """An OpenAI-compatible endpoint, up to before `/chat/completions`; without one the built-in assistant
    answers.
    """
    chat_api_key: SecretStr = SecretStr("")
    chat_model: str = Field(default="", max_length=200)
    chat_timeout_s: float = Field(default=20.0, gt=0, le=120)
    """How long the model may be silent."""
    chat_context_tokens: int = Field(default=8_000, ge=500)
    """What of a conversation a model is sent, about."""
    chat_concurrency: int = Field(default=64, ge=1, le=1000)
    """Requests of one replica to the model at once."""

    gateway_url: str = Field(default="", pattern=r"^(https?://[^\s?#]+)?$")
    """The payment gateway, up to before `/payments`. Without one, development pays through a simulator and
    production pays nothing.
    """
    gateway_api_key: SecretStr = SecretStr("")
    gateway_timeout_s: float = Field(default=3.0, gt=0, le=30)
    """How long a request to the gateway may take in all. What waits for it waits for Nginx as well: 6 s."""
    gateway_simulated_delay_s: float = Field(default=0.0, ge=0, le=60)
    gateway_simulated_failed: float = Field(default=0.0, ge=0, le=1)
    """The share of payments that the simulator fails at before it has paid."""
    gateway_simulated_lost: float = Field(default=0.0, ge=0, le=1)
    """The share of payments whose answer it loses after it has paid."""
    gateway_simulated_refused: float = Field(default=0.0, ge=0, le=1)
    """The share of payments that it refuses for good."""

    public_url: str = "http://localhost:8080"
    """Where users reach the service; used in mails."""
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_username: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_starttls: bool = True
    mail_from: str = "CargoFlow <no-reply@cargoflow.example>"

    @field_validator("cors_origin", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("server_names", mode="before")
    @classmethod
    def _split_by_blanks(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", origin):
                raise ValueError(f"{origin!r} is not an origin such as https://app.example.com")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("mongodb_uri")
    @classmethod
    def _mongodb_uri(cls, value: SecretStr) -> SecretStr:
        if not _MONGODB_URI.fullmatch(value.get_secret_value()):
            raise ValueError("not of the form mongodb://user:password@host:port/database, specials escaped")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        if not _REDIS_URL.fullmatch(value.get_secret_value()):
            raise ValueError("not of the form redis://user:password@host:port/0, specials escaped")
        return value

    @field_validator(
        "limit_auth", "limit_auth_email", "limit_anonymous", "limit_standard",
        "limit_premium", "limit_booking", "limit_address", "limit_chat",
    )  # fmt: skip
    @classmethod
    def _limit(cls, value: str) -> str:
        if not _LIMIT.match(value):
            raise ValueError(f"{value!r} is not a limit such as 600/minute or 5/15minutes")
        return value

    @model_validator(mode="after")
    def _secrets(self) -> Self:
        secret = self.jwt_secret.get_secret_value()
        if self.app_env == "production":
            for name in ("mongodb_uri", "redis_url"):
                if name not in self.model_fields_set:
                    raise ValueError(
                        f"{name.upper()} is not set; production assumes no store, name the one to use"
                    )
            for name, value in (
                ("JWT_SECRET", secret),
                ("JWT_SECRET_PREVIOUS", self.jwt_secret_previous.get_secret_value()),
            ):
                if name == "JWT_SECRET_PREVIOUS" and not value:
                    continue
                _refuse_weak_secret(name, value)
        elif not secret:
            object.__setattr__(self, "jwt_secret", SecretStr(secrets.token_urlsafe(48)))
        return self

    @property
    def production(self) -> bool:
        """Whether this process must be strict about secrets and cookies."""
        return self.app_env == "production"

    @property
    def base_path(self) -> str:
        """The prefix of the API, such as `/api/v1`."""
        return f"/api/{self.api_version}"

    @property
    def serves_docs(self) -> bool:
        """Whether /docs and /openapi.json are served."""
        return not self.production if self.docs_enabled is None else self.docs_enabled

    @cached_property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks whose X-Forwarded-For is believed."""
        return tuple(ip_network(network) for network in self.trusted_proxies)


def _refuse_weak_secret(name: str, value: str) -> None:
    if not value:
        raise ValueError(f"{name} is not set; write a fresh one with './cargoflow env > .env'")
    if len(value.encode()) < _MIN_SECRET_BYTES or len(set(value)) < _MIN_DISTINCT_CHARACTERS:
        raise ValueError(
            f"{name} is too weak: {_MIN_SECRET_BYTES} random bytes or more; './cargoflow env' prints some"
        )
    if _SAMPLE_SECRET.search(value):
        raise ValueError(f"{name} looks like a sample value; './cargoflow env' prints a random one")


def load_settings() -> Settings:
    """Read the environment.

    Raises SettingsError with one line naming the first variable that is wrong and how to mend it; values are
    never repeated for secrets.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        variable = "_".join(str(part) for part in first["loc"]).upper()
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{variable}: {message}" if variable else message) from None
