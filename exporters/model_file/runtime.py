"""The one place that opens an onnxruntime session: settings fixed and recorded, every failure a plain sentence."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as _ort_state
from torch import Tensor, nn

from compressor.core.errors import MissingDeviceError, MissingInputError, UnreadableModelError, UsageError
from compressor.system.threads import available_threads
from exporters.model_file.input_layout import Sizes, read_declared_layout
from exporters.model_file.preprocessing import Preprocessing

Provider = Literal["cpu", "cuda"]
Images = np.ndarray[Any, np.dtype[np.float32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]

BATCH_SIZE = 64
"""Images in one run of the session. Fixed and recorded, because a kernel may round otherwise at another batch size."""

_EXECUTION_PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OPTIMISATION = "all"
_FATAL_ONLY = 4  # every error reaches us as an exception; the log would only repeat it, with colour codes
_CPU_FLAGS = (  # those that choose onnxruntime's kernels, by the names of x86 and then of Arm
    *("avx", "avx2", "f16c", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)


class Session:
    """An open model: float32 images ``[B, C, H, W]`` in [0, 1] to float32 logits ``[B, K]``.

    Images run in chunks of ``batch_size``. The last chunk is run as it is, never padded: padding would hide a model
    whose output depends on its batch, and would charge a whole batch for one query of an attack. So an image's logits
    may differ in their last bits between batch sizes; decisions allow for that with a margin, and repeating a call
    with the same images gives the same bits.

    A file that takes only so many images at once gets exactly those; only there a short chunk is filled up, with its
    own last image, so that an image that is asked for alone sees no other.

    Attributes:
        provider: the device that runs it, ``cpu`` or ``cuda``, as onnxruntime reports it.
        threads: threads that one operator may use.
        batch_size: images in one run, at most.
        input_name: the name of the image input.
        output_name: the name of the logits output.
        input_layout: how the file wants its images.
        image_shape: ``(C, H, W)`` of the images it takes.
        classes: ``K``, how many logits it gives.
        on_run: called before each run, so that a watcher can tell a slow file from one that hangs.
    """

    def __init__(
        self,
        inner: onnxruntime.InferenceSession,
        *,
        provider: Provider,
        threads: int,
        batch_size: int,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self._inner = inner
        self.provider = provider
        self.threads = threads
        (self.input_name, image), (self.output_name, logits) = _image_input(inner), _logits_output(inner)
        self.input_layout = read_declared_layout(image, logits).input_layout(preprocessing)
        self.image_shape, self.classes = self.input_layout.image_shape, self.input_layout.classes
        self.batch_size = min(batch_size, self.input_layout.batch or batch_size)
        self.on_run: Callable[[], None] | None = None

    def __call__(self, images: Images, *, batch_size: int | None = None) -> Logits:
        """Return float32 logits ``[B, K]``; ``B`` may be 0.

        Args:
            images: float32 ``[B, C, H, W]`` in [0, 1].
            batch_size: images in one run, where it must differ from the session's own; a file of a fixed batch gets
                no more than that.

        Raises:
            UsageError: the images have another shape or type than the model takes.
            UnreadableModelError: onnxruntime failed, or the output is not one row of logits an image.
        """
        self._check(images)
        size = min(batch_size or self.batch_size, self.input_layout.batch or len(images) or 1)
        chunks = [self._run(images[start : start + size]) for start in range(0, len(images), size)]
        return np.concatenate(chunks) if chunks else np.zeros((0, self.classes), dtype=np.float32)

    def describe(self) -> dict[str, Any]:
        """What a claim records of the runtime: equal on equal machines and settings; no path, no host, no clock."""
        return {
            "onnxruntime": onnxruntime.__version__,
            "provider": self.provider,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "optimisation": _OPTIMISATION,
            "machine": platform.machine(),
            "cpu_features": cpu_features(),
        }

    def _check(self, images: Images) -> None:
        if images.dtype != np.float32:
            raise UsageError(f"the model takes float32 images, and these are {images.dtype}.")
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise UsageError(
                f"the model takes images of {_by(self.image_shape)}, and these are {_by(images.shape[1:])}.",
                "Give --image-size and data that fit the model.",
            )

    def _run(self, images: Images) -> Logits:
        if self.on_run is not None:
            self.on_run()
        batch = self.input_layout.batch or len(images)
        filled = np.concatenate([images, images[-1:].repeat(batch - len(images), 0)]) if batch > len(images) else images
        try:
            (logits,) = self._inner.run([self.output_name], {self.input_name: self.input_layout.of_array(filled)})
        except _ort_errors() as error:
            raise UnreadableModelError(f"onnxruntime cannot run the model: {_first_line(error)}") from error
        # Some exporters leave axes of size one behind the classes.
        if (
            not isinstance(logits, np.ndarray)
            or logits.shape[:2] != (batch, self.classes)
            or logits[0].size != self.classes
        ):
            raise UnreadableModelError("the model does not give one row of logits for each image.")
        return logits.reshape(batch, self.classes)[: len(images)]


class SessionModule(nn.Module):
    """A session as a torch module, for attacks that only query: logits carry no gradient.

    Args:
        session: the open model.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, x: Tensor) -> Tensor:
        """Float32 logits ``[B, K]`` of ``x`` ``[B, C, H, W]`` in [0, 1], on the device of ``x``."""
        images = x.detach().to("cpu", torch.float32).contiguous().numpy()
        return torch.from_numpy(self.session(images)).to(x.device)


def open_session(
    model: bytes | Path,
    *,
    provider: Provider = "cpu",
    threads: int | None = None,
    batch_size: int = BATCH_SIZE,
    preprocessing: Preprocessing | None = None,
) -> Session:
    """Open a model under fixed settings: all optimisations, sequential, deterministic kernels, TF32 off.

    It is opened from memory, so nothing but the file itself is read. A file of unknown origin goes through
    ``exporters.model_file.structure.load_untrusted`` first.

    Args:
        model: the bytes of an ONNX file, or its path.
        provider: ``cpu`` or ``cuda``.
        threads: threads for one operator; all that this process may use, where it is ``None``.
        batch_size: images in one run.
        preprocessing: what the file does not say of the images that it wants.

    Raises:
        MissingInputError: there is no such file.
        MissingDeviceError: CUDA was asked for and is absent; there is no fallback.
        UnreadableModelError: onnxruntime cannot open it, or it is not an image classifier.
        UsageError: the number of threads is not positive, or the preprocessing does not fit the file.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads is not a positive number.")
    name = _EXECUTION_PROVIDERS[provider]
    if name not in onnxruntime.get_available_providers():
        raise _missing(provider)
    count = threads or available_threads()
    data = model if isinstance(model, bytes) else _read(model)
    try:
        inner = onnxruntime.InferenceSession(
            data, _options(count), providers=[(name, _provider_options(provider))], enable_fallback=0
        )
    except _ort_errors() as error:
        # A CUDA library that cannot be loaded arrives here too: only opening on the CPU tells the two apart.
        if provider != "cpu" and _opens_on_cpu(data, count):
            raise _missing(provider) from error
        raise UnreadableModelError(f"onnxruntime cannot open the model: {_first_line(error)}") from error
    if inner.get_providers()[0] != name:
        raise _missing(provider)
    try:
        return Session(inner, provider=provider, threads=count, batch_size=batch_size, preprocessing=preprocessing)
    except UnicodeDecodeError as error:
        raise UnreadableModelError("the model's names are not text.") from error


def cpu_features() -> list[str]:
    """The instruction sets that decide which kernels onnxruntime chooses, sorted; empty where they cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.partition(":")[2] for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    present = set(lines[0].split()) if lines else set()
    return sorted(present.intersection(_CPU_FLAGS))


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _FATAL_ONLY
    # Attacks alternate between torch and the session: a spinning pool would take torch's cores while it waits.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _provider_options(provider: Provider) -> dict[str, str]:
    return {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"} if provider == "cuda" else {}


def _missing(provider: Provider) -> MissingDeviceError:
    return MissingDeviceError(
        f"onnxruntime cannot use {provider.upper()} on this machine.",
        "Use --provider cpu, or install the driver and libraries that onnxruntime-gpu names.",
    )


def _opens_on_cpu(data: bytes, threads: int) -> bool:
    try:
        onnxruntime.InferenceSession(data, _options(threads), providers=["CPUExecutionProvider"], enable_fallback=0)
    except _ort_errors():
        return False
    return True


def _image_input(inner: onnxruntime.InferenceSession) -> tuple[str, Sizes]:
    return _only(inner.get_inputs(), "takes", "input", "images")


def _logits_output(inner: onnxruntime.InferenceSession) -> tuple[str, Sizes]:
    return _only(inner.get_outputs(), "gives", "output", "logits")


def _only(values: Sequence[Any], verb: str, side: str, meaning: str) -> tuple[str, Sizes]:
    if len(values) != 1:
        raise UnreadableModelError(f"the model {verb} {len(values)} {side}s, and a classifier {verb} one.")
    if values[0].type != "tensor(float)":
        raise UnreadableModelError(f"the model's {side} is not float32 {meaning}.")
    return values[0].name, _sizes(values[0].shape)


def _sizes(shape: Sequence[Any]) -> Sizes:
    """The sizes of an input or output: a name, or nothing, where one is open."""
    return [size if isinstance(size, int) else None for size in shape]


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingInputError(f"there is no file {path}.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingInputError(f"cannot read {path}: {error.strerror or error}.") from error


def _ort_errors() -> tuple[type[Exception], ...]:
    # onnxruntime's exceptions share no base class but Exception, so they are gathered from their module.
    own = (value for value in vars(_ort_state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    # The text may quote the file, and a terminal would obey control characters.
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if line.endswith(".") else f"{line}."


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
