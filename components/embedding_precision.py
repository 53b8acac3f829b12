"""
In which arithmetic a model computes: bf16 where the processor has instructions for it, fp16 on a GPU, else fp32.

Weights, sums and what leaves the model stay in fp32; only matrix products and attention are computed in 16 bits, by torch's
autocast. So vectors have a cosine of 0.9999 and more to those of fp32, and both kinds may stand in one index.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, get_args

from database.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""What makes bf16 faster than fp32 on a processor, in torch's words. On ARM, bf16 is used only when asked for."""

SHORT = 400
"""Characters in one call below which fp32 is faster, as weights are converted once a call; a question is one."""

_log = logging.getLogger(__name__)


def resolved_precision(precision: Precision, *, device: str) -> Literal["fp32", "bf16", "fp16"]:
    """
    What a choice means on a device.

    :param precision: The choice.
    :param device: As torch names it, such as `cpu` or `cuda:0`.
    """
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "fp16"
    return "bf16" if device.startswith("cpu") and has_bf16() else "fp32"


def has_bf16() -> bool:
    """Whether this processor computes in bf16 faster than in fp32; torch asks the processor itself, on any system."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in INSTRUCTIONS)


def precision_sentence(precision: Precision, *, device: str | None = None) -> str:
    """
    How embeddings are computed here, for people.

    :param precision: The choice.
    :param device: As torch names it; `None` means the one that Haystack would choose.
    """
    if device is None:
        from haystack.utils import ComponentDevice

        device = ComponentDevice.resolve_device(None).to_torch_str()
    found = resolved_precision(precision, device=device)
    where = "this processor" if device.startswith("cpu") else device
    if precision != "auto":
        return f"Embedding in {found} on {where}, as EMBEDDING_PRECISION says."
    if found == "fp32" and device.startswith("cpu"):
        return "Embedding in fp32: this processor has no bf16."
    return f"Embedding in {found} on {where}."


def checked_precision(precision: str) -> Precision:
    """
    Check a choice.

    :raises ConfigurationError: If there is no such choice.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"EMBEDDING_PRECISION must be one of {', '.join(PRECISIONS)}, but is {precision!r}.")
    return precision  # type: ignore[return-value]


class PreciseBackend:
    """
    Haystack's embedding backend, computing in a given arithmetic. Safe to share between threads.

    :param backend: The backend, which may be shared with others.
    :param precision: The choice. With `auto`, short calls are computed in fp32.
    :param device: Where the model is, as torch names it.
    """

    def __init__(self, backend: Any, *, precision: Precision, device: str) -> None:
        self._backend = backend
        self._device = device.split(":")[0]
        self._short = SHORT if precision == "auto" and self._device == "cpu" else 0
        self.precision = resolved_precision(precision, device=device)

    @property
    def model(self) -> Any:
        """The model itself, in fp32."""
        return self._backend.model

    def embed(self, data: list[str], **kwargs: Any) -> list[list[float]]:
        """
        Embed texts. A model that cannot do so in 16 bits does it in fp32 from then on, and a line of the log says so.

        :param data: The texts.
        :param kwargs: Whatever the backend takes.
        """
        if self.precision == "fp32" or sum(map(len, data)) < self._short:
            return self._plain(data, kwargs)
        try:
            with self._autocast():
                vectors = self._plain(data, kwargs)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as exc:
            vectors = self._plain(data, kwargs)  # where this fails too, it has nothing to do with precision
            self._give_up(str(exc).splitlines()[0] if str(exc) else type(exc).__name__)
            return vectors
        if kwargs.get("precision", "float32") != "float32" or not vectors:
            return vectors
        import numpy as np  # not at the top: config.py imports this module

        array = np.asarray(vectors, dtype=np.float32)
        if not np.isfinite(array).all():
            self._give_up("a number was too large")
            return self._plain(data, kwargs)
        return _normalized(array).tolist() if self._normalizes(kwargs) else vectors

    def _plain(self, data: list[str], kwargs: dict[str, Any]) -> list[list[float]]:
        vectors: list[list[float]] = self._backend.embed(data, **kwargs)
        return vectors

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        return torch.autocast(self._device, dtype=dtype) if dtype else nullcontext()

    def _give_up(self, reason: str) -> None:
        if self.precision != "fp32":
            _log.warning("The embedding model cannot compute in %s and goes on in fp32: %s", self.precision, reason)
        self.precision = "fp32"

    def _normalizes(self, kwargs: dict[str, Any]) -> bool:
        from sentence_transformers.models import Normalize  # type: ignore[import-not-found]

        return bool(kwargs.get("normalize_embeddings")) or isinstance(self.model[-1], Normalize)


def _normalized(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Unit vectors again: a model may end in a layer that gives 16 bits."""
    import numpy as np

    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    return array / np.where(lengths == 0, 1, lengths)
