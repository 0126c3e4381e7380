"""Starting a run from existing weights, taken over by what they mean rather than by shape alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from histocc.errors import Problems, UsageError
from histocc.files.hub import without_retry_messages
from histocc.files.torch_files import DamagedFile, read_torch_file

PUBLISHED_MODELS = {"occ-canine-v1": "christianvedel/OccCANINE"}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

# Names of the same part in the mixer and in the flat classifier.
_ENCODER_PREFIXES = ("encoder.", "basemodel.")
_HEAD_PREFIXES = ("linear_decoder.", "out.")
_DECODER_PREFIX = "decoder."
# Left in parameter names by DistributedDataParallel and torch.compile.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class WeightSummary:
    """What `load_initial_weights` took over.

    Attributes:
        source: file or published name.
        entries: entries of the state dict that were taken over whole (encoder, decoder).
        decoder: whether the decoder was taken over; None if the model has none.
        head_carried: rows of the flat head that were taken over; None if it was not asked for.
        new_classes: classes whose row starts fresh; None if the head was not asked for.
        dropped: classes of the source that this run does not have.
        note: an assumption that was made about the classes, or why none was carried; '' if there is nothing to say.
    """

    source: str
    entries: int
    decoder: bool | None = None
    head_carried: int | None = None
    new_classes: int | None = None
    dropped: int = 0
    note: str = ""

    def __str__(self) -> str:
        """One line for people."""
        parts = ["encoder" + (" and decoder" if self.decoder else "") + f" taken over ({self.entries:,} entries)"]
        if self.decoder is False:
            parts.append("decoder starts fresh")
        if self.head_carried is not None:
            head = f"flat head: {self.head_carried:,} classes carried over, {self.new_classes:,} start fresh"
            if self.dropped:
                head += f", {self.dropped:,} of the source are not used"
            parts.append(head)
        if self.note:
            parts.append(self.note)
        return f"initial weights from {self.source}: " + "; ".join(parts)


def read_state_dict(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights in a file.

    Args:
        path: a training checkpoint (a dict with an entry `model`), a bare state dict or a safetensors file, with or
            without its ending `.bin`; or a folder that holds `model.safetensors` or `pytorch_model.bin`.

    Returns:
        The state dict, on the CPU, free of names that wrappers add; and the other entries of the checkpoint.

    Raises:
        UsageError: there is no such file; it is damaged, holds pickled objects (nothing of it is executed), or no
            weights. The message names the file.
    """
    path = _find_file(Path(path))
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    else:
        content = read_torch_file(path)
    extras: dict[str, Any] = {}
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        extras = {name: entry for name, entry in content.items() if name != "model"}
        content = content["model"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise UsageError(f"{path} holds no weights: a state dict, or a checkpoint with an entry 'model', is needed")
    # Older versions of transformers saved the positions, which are no weights.
    state = {_unwrapped(name): tensor for name, tensor in content.items() if not name.endswith(".position_ids")}
    return state, extras


def load_initial_weights(
    model: nn.Module,
    path_or_name: str | os.PathLike[str],
    *,
    only_encoder: bool = False,
    key: Mapping[str, int] | None = None,
) -> WeightSummary:
    """Take over from a file what fits `model` by meaning; the model is changed only if everything fits.

    The encoder must be there and fit. The decoder is taken over if both sides have one, and must fit then. The flat
    head goes row by row: the row of a code is taken over wherever both sides have that code. Where the coding systems
    are the same, that is the whole head. Files of the mixer, of the flat classifier and of the bare encoder will do.

    Args:
        model: a mixer, `Seq2SeqOccCANINE` or flat classifier; unwrapped.
        path_or_name: as for `read_state_dict`, or `'occ-canine-v1'` (any case), the published flat classifier
            `christianvedel/OccCANINE` on the Hugging Face hub.
        only_encoder: take the encoder alone.
        key: class index of each code of this run; None where the classes are those of HISCO or OCC1950.

    Raises:
        UsageError: see `read_state_dict`; or the encoder or the decoder does not fit, with the sizes of both.
    """
    source = str(path_or_name)
    if source.lower() in PUBLISHED_MODELS:
        state, extras = read_state_dict(_fetch(PUBLISHED_MODELS[source.lower()]))
    else:
        state, extras = read_state_dict(path_or_name)

    own = model.state_dict()
    encoder_name = next(prefix for prefix in _ENCODER_PREFIXES if any(name.startswith(prefix) for name in own))
    wanted_encoder = _part(own, (encoder_name,))
    wanted_decoder = {} if only_encoder else _part(own, (_DECODER_PREFIX,))
    wanted_head = {} if only_encoder else _part(own, _HEAD_PREFIXES)
    if any(name.startswith("char_embeddings.") for name in state):  # a bare encoder has parts named encoder.* itself
        encoder, decoder, head = state, {}, {}
    else:
        encoder, decoder, head = (
            _part(state, prefixes) for prefixes in (_ENCODER_PREFIXES, (_DECODER_PREFIX,), _HEAD_PREFIXES)
        )

    problems = Problems()
    _check_encoder(source, encoder, wanted_encoder, problems)
    if decoder and wanted_decoder:
        _check_decoder(source, decoder, wanted_decoder, problems)
    problems.raise_if_any()

    entries = _copy(encoder, wanted_encoder) + (_copy(decoder, wanted_decoder) if decoder else 0)
    has_decoder = bool(decoder) if wanted_decoder else None
    if not wanted_head:
        return WeightSummary(source, entries, has_decoder)
    if not head.keys() >= {"weight", "bias"}:
        return WeightSummary(source, entries, has_decoder, 0, len(wanted_head["bias"]), 0, "it has no flat head")

    rows, note = _matching_rows(extras, len(head["bias"]), key, len(wanted_head["bias"]))
    if rows:
        theirs, ours = (torch.tensor(column) for column in zip(*rows))
        with torch.no_grad():
            for name in ("weight", "bias"):
                device = wanted_head[name].device
                wanted_head[name][ours.to(device)] = head[name][theirs].to(device, wanted_head[name].dtype)
    return WeightSummary(
        source,
        entries,
        has_decoder,
        head_carried=len(rows),
        new_classes=len(wanted_head["bias"]) - len(rows),
        dropped=len(head["bias"]) - len(rows),
        note=note,
    )


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> int:
    """Fill `target`, whose tensors are those of the model, and count its entries."""
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])
    return len(target)


def class_codes(key: Mapping[Any, int] | None, num_classes: int) -> dict[str, int] | None:
    """Class index of each code; without a key the codes of HISCO (1,919 classes) or OCC1950 (1,000), else None."""
    if key is not None:
        return {str(code): int(index) for code, index in key.items()}
    if num_classes == 1919:
        from histocc.datasets import hisco_codes

        return {code: index for index, code in enumerate(hisco_codes())}
    if num_classes == 1000:
        return {f"{index:03d}": index for index in range(num_classes)}
    return None


def _matching_rows(
    extras: Mapping[str, Any], num_theirs: int, key: Mapping[str, int] | None, num_ours: int
) -> tuple[list[tuple[int, int]], str]:
    """Pairs of (row there, row here) of the flat head that mean the same class, and a note."""
    theirs = class_codes(extras.get("key"), num_theirs)
    ours = class_codes(key, num_ours)
    if theirs is None or ours is None:
        if num_theirs != num_ours:
            return [], f"its {num_theirs:,} classes have no key, so none could be matched"
        return [(row, row) for row in range(num_ours)], "it has no key; its classes are taken to be those of this run"
    rows = [
        (theirs[code], row)
        for code, row in ours.items()
        if code in theirs and theirs[code] < num_theirs and row < num_ours
    ]
    return rows, ""


def _check_encoder(source: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], problems: Problems) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        problems.add(
            f"{source} is no checkpoint of these models: it lacks {len(missing)} of the encoder's {len(wanted)} "
            f"entries, {missing[0]} for one"
        )
    elif _misfits(found, wanted):
        width, layers = _encoder_size(found)
        own_width, own_layers = _encoder_size(wanted)
        name = _misfits(found, wanted)[0]
        problems.add(
            f"the encoder in {source} has hidden size {width} and {layers} layers, this run's has {own_width} and "
            f"{own_layers} ({name} is {list(found[name].shape)} there, {list(wanted[name].shape)} here); "
            f"choose the matching one with --encoder"
        )
    elif len(found) > len(wanted):
        extra = next(name for name in found if name not in wanted)
        problems.add(f"the encoder in {source} is larger than this run's: it has {extra}; choose it with --encoder")


def _check_decoder(source: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], problems: Problems) -> None:
    misfits = [name for name in wanted if name not in found] or _misfits(found, wanted)
    if not misfits:
        return
    vocabulary, own_vocabulary = (len(part["head.bias"]) if "head.bias" in part else 0 for part in (found, wanted))
    if vocabulary != own_vocabulary:
        sizes = f"writes {vocabulary} tokens, this run's formatter has {own_vocabulary}"
    elif misfits[0] in found:
        name = misfits[0]
        sizes = f"does not fit: {name} is {list(found[name].shape)} there, {list(wanted[name].shape)} here"
    else:
        sizes = f"does not fit: it lacks {misfits[0]}"
    problems.add(
        f"the decoder in {source} {sizes}. To start from its encoder and with a fresh decoder, add --only-encoder"
    )


def _misfits(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in wanted.items() if name in found and found[name].shape != tensor.shape]


def _encoder_size(encoder: Mapping[str, Tensor]) -> tuple[int, int]:
    layers = {name.split(".")[2] for name in encoder if name.startswith("encoder.layer.")}
    return encoder["pooler.dense.bias"].numel(), len(layers)


def _part(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The entries whose names start with one of the prefixes, without it."""
    return {name[len(p) :]: tensor for name, tensor in state.items() for p in prefixes if name.startswith(p)}


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPER_PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _find_file(path: Path) -> Path:
    if path.is_dir():
        for name in WEIGHT_FILES:
            if (path / name).is_file():
                return path / name
        near = next((path / name for name in ("best.bin", "last.bin") if (path / name).is_file()), None)
        hint = "" if near is None else f"; did you mean {near}?"
        raise UsageError(f"the folder {path} holds no weights: neither {' nor '.join(WEIGHT_FILES)}{hint}")
    if path.is_file():
        return path
    with_ending = path.with_name(path.name + ".bin")
    if with_ending.is_file():
        return with_ending
    published = ", ".join(PUBLISHED_MODELS)
    raise UsageError(f"{path}: there is no such checkpoint (a file, or one of: {published})")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise DamagedFile(f"{path}: the file is damaged ({error}); fetch or copy it again") from error


def _fetch(repository: str) -> Path:
    """The published weights, from the local cache or the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason = ""
    for name in WEIGHT_FILES:
        try:
            with without_retry_messages():
                return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:
            reason = str(error).strip().split("\n", 1)[0]
        except EntryNotFoundError:
            reason = f"it has no {' or '.join(WEIGHT_FILES)}"
    raise UsageError(
        f"the published weights {repository} are not in the local cache and could not be fetched from the Hugging "
        f"Face hub ({reason}). Fetch them on a machine with network access and pass the file with --initial-checkpoint"
    )
