"""
Every error that Synapse raises on purpose.

A message says what was expected and what was found; `hint` says what to do. Doors print both, and nothing else.

    SynapseError
    ├── ConfigurationError          (also a ValueError)
    ├── InvalidInputError           (also a ValueError): a filter, a document, a path that cannot be used
    ├── NotFoundError               a conversation, a message, a user, a key that is not there, or not the caller's
    ├── LimitError                  too much was asked for: the tokens of a day
    ├── GuardError                  refused to protect data; a flag overrides it
    ├── LanguageModelError          the language model's server failed
    ├── EmbeddingModelError         the embedding model's server failed
    └── DatabaseError
        ├── DatabaseUnavailableError    down, refused, timed out, wrong password
        ├── ExtensionMissingError       no pgvector
        ├── DataRefusedError            a value that PostgreSQL cannot hold, such as a text too long for its index
        ├── UnknownTenantError          no such tenant, or not this role's
        └── SchemaError                 another schema version, another dimension, a table that is not there

The document store's own error, `database.store_errors.StoreError`, is a `DatabaseError` and Haystack's `DocumentStoreError`.
"""

DONE, FAILED, USAGE, PARTLY_DONE, REFUSED, BELOW_THRESHOLD = range(6)


class SynapseError(Exception):
    """
    The root of the tree.

    :param message: One sentence: what was expected, what was found.
    :param hint: One sentence: what to do about it; may be empty.
    """

    code = "failed"
    exit_code = FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigurationError(SynapseError, ValueError):
    """A setting is missing, or has a value that cannot be used."""

    code = "configuration"
    exit_code = USAGE


class InvalidInputError(SynapseError, ValueError):
    """What the caller gave cannot be used: a filter, a document, a path."""

    code = "invalid_input"
    exit_code = USAGE


class NotFoundError(SynapseError):
    """What was asked for is not there, or belongs to somebody else: nobody learns which."""

    code = "not_found"


class LimitError(SynapseError):
    """More was asked for than a key or a user may have; the hint says when there is more."""

    code = "limit"


class GuardError(SynapseError):
    """Refused, so that nothing is lost; the hint names the flag that overrides it."""

    code = "refused"
    exit_code = REFUSED


class LanguageModelError(SynapseError):
    """The language model's server failed, answered nonsense, or did not answer."""

    code = "language_model"


class EmbeddingModelError(SynapseError):
    """The embedding model's server failed, answered nonsense, or did not answer."""

    code = "embedding_model"


class DatabaseError(SynapseError):
    """PostgreSQL refused or failed."""

    code = "database"


class DatabaseUnavailableError(DatabaseError):
    """No connection: the server is down, refuses, times out, or rejects the password."""

    code = "database_unavailable"


class ExtensionMissingError(DatabaseError):
    """The server has no pgvector, or one that is too old."""

    code = "extension_missing"


class DataRefusedError(DatabaseError):
    """A value that PostgreSQL cannot hold; without it, the same statement would be accepted."""

    code = "data_refused"


class UnknownTenantError(DatabaseError):
    """There is no tenant of that name, or the role that connects may not act for it."""

    code = "unknown_tenant"
    exit_code = USAGE


class SchemaError(DatabaseError):
    """The database's schema is not the one that this program expects."""

    code = "schema"
