"""Starting a run from existing weights, taken over by what they mean rather than by shape alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from histocc.errors import Problems, UsageError
from histocc.files import entries, run_folder
from histocc.files.entries import Entries
from histocc.files.hub import why_out_of_reach, without_retry_messages
from histocc.files.ordinary import IS_FOLDER, IS_MISSING, fault_of_file
from histocc.files.tensors import tensor
from histocc.files.torch_files import DamagedFile, first_line, read_torch_file

PUBLISHED_MODELS = {"occ-canine-v1": "christianvedel/OccCANINE"}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

_ADVICE = "Take another file"

# Names of the same part in the mixer and in the flat classifier.
_ENCODER_PREFIXES = ("encoder.", "basemodel.")
_HEAD_PREFIXES = ("linear_decoder.", "out.")
_DECODER_PREFIX = "decoder."
# Left in parameter names by DistributedDataParallel and torch.compile.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class WeightSummary:
    """What `load_initial_weights` took over.

    Attributes
    ----------
    source
        File or published name.
    entries
        Entries of the state dict that were taken over whole (encoder, decoder).
    decoder
        Whether the decoder was taken over; None if the model has none.
    head_carried
        Rows of the flat head that were taken over; None if it was not asked for.
    new_classes
        Classes whose row starts fresh; None if the head was not asked for.
    dropped
        Classes of the source that this run does not have.
    note
        An assumption that was made about the classes, or why none was carried; '' if there is nothing to say.
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

    Parameters
    ----------
    path
        A training checkpoint (a dict with an entry `model`), a bare state dict or a safetensors file, with or
        without its ending `.bin`; or a folder that holds `model.safetensors` or `pytorch_model.bin`, or a run, whose
        best weights are taken.

    Returns
    -------
    tuple[dict[str, Tensor], dict[str, Any]]
        The state dict, on the CPU, free of names that wrappers add; and the other entries of the checkpoint.

    Raises
    ------
    UsageError
        There is no such file; it is damaged, holds pickled objects (nothing of it is executed), or no
        weights. The message names the file.
    """
    path = file_of_weights(path)
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    else:
        content = read_torch_file(path)
    extras: dict[str, Any] = {}
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        extras = {name: entry for name, entry in content.items() if name != "model"}
        content = content["model"]
    if not isinstance(content, Mapping) or not any(isinstance(each, Tensor) for each in content.values()):
        raise UsageError(f"{path} holds no weights: a state dict, or a checkpoint with an entry 'model', is needed")
    found = Entries(path, _ADVICE)
    weights = found.check("model", content, entries.mapping_of(tensor(finite=False)))
    found.raise_if_any()
    state: dict[str, Tensor] = {}
    for name, value in weights.items():
        # Older versions of transformers saved the positions, which are no weights.
        if not name.endswith(".position_ids") and state.setdefault(_unwrapped(name), value) is not value:
            found.note(f"the entry {_unwrapped(name):.100} is there twice, once as a wrapped model names it")
    found.raise_if_any()
    return state, extras


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start a run from, as they were read.

    Attributes
    ----------
    source
        File or published name.
    state
        The state dict, on the CPU.
    extras
        The other entries of the checkpoint.
    """

    source: str
    state: Mapping[str, Tensor]
    extras: Mapping[str, Any]

    @classmethod
    def read(cls, path_or_name: str | os.PathLike[str]) -> InitialWeights:
        """Read a file, as `read_state_dict` does, or `'occ-canine-v1'` (any case), the published flat classifier.

        Raises
        ------
        UsageError
            See `read_state_dict`.
        """
        source = str(path_or_name)
        published = PUBLISHED_MODELS.get(source.lower())
        path = path_or_name if published is None else _fetch(published)
        if os.path.isdir(path):
            path = file_of_weights(path)
            if path.name not in WEIGHT_FILES:  # a run has several files
                source = str(path)
        return cls(source, *read_state_dict(path))

    def has_encoder_of(self, encoder: nn.Module) -> bool:
        """Whether the encoder's weights are just those of a bare `encoder`, by names and shapes."""
        found, wanted = _parts_of(self.state, True).encoder, encoder.state_dict()
        return found.keys() == wanted.keys() and not _misfits(found, wanted)

    @property
    def is_published(self) -> bool:
        """Whether they are those of a published model."""
        return self.source.lower() in PUBLISHED_MODELS

    def check(self, model: nn.Module, *, only_encoder: bool = False) -> None:
        """Raise UsageError where the weights do not fit `model`, are no finite numbers, or have a key that is none.

        Only the shapes of the model count, so that it may be on the meta device; its number of classes does not.
        """
        own, theirs = _parts_of(model.state_dict(), only_encoder), _parts_of(self.state, only_encoder)
        problems = Problems()
        _check_encoder(self.source, theirs.encoder, own.encoder, problems)
        if theirs.decoder and own.decoder:
            _check_decoder(self.source, theirs.decoder, own.decoder, problems)
        problems.raise_if_any()
        found = Entries(self.source, _ADVICE)
        _check_values(found, theirs.encoder, own.encoder)
        if own.decoder:
            _check_values(found, theirs.decoder, own.decoder)
        if own.head and theirs.has_head:
            self._check_head(found, theirs.head, own.head["weight"].shape[1])
        found.raise_if_any()

    def _check_head(self, found: Entries, head: Mapping[str, Tensor], width: int) -> None:
        bias = found.check("bias of the flat head", head["bias"], tensor([head["bias"].numel()]))
        if bias is not None:
            found.check("weight of the flat head", head["weight"], tensor([len(bias), width]))
            found.check("key", self.extras.get("key"), entries.optional(entries.key(len(bias))))

    def load_into(
        self, model: nn.Module, *, only_encoder: bool = False, key: Mapping[str, int] | None = None
    ) -> WeightSummary:
        """Copy what fits `model` by meaning, see `load_initial_weights`; it is changed only if everything fits."""
        self.check(model, only_encoder=only_encoder)
        own, theirs = _parts_of(model.state_dict(), only_encoder), _parts_of(self.state, only_encoder)
        entries = _copy(theirs.encoder, own.encoder) + (_copy(theirs.decoder, own.decoder) if theirs.decoder else 0)
        has_decoder = bool(theirs.decoder) if own.decoder else None
        if not own.head:
            return WeightSummary(self.source, entries, has_decoder)
        classes = len(own.head["bias"])
        if not theirs.has_head:
            return WeightSummary(self.source, entries, has_decoder, 0, classes, 0, "it has no flat head")

        rows, note = _matching_rows(self.extras, len(theirs.head["bias"]), key, classes)
        if rows:
            there, here = (torch.tensor(column) for column in zip(*rows))
            with torch.no_grad():
                for name in ("weight", "bias"):
                    head = own.head[name]
                    head[here.to(head.device)] = theirs.head[name][there].to(head.device, head.dtype)
        return WeightSummary(
            self.source,
            entries,
            has_decoder,
            head_carried=len(rows),
            new_classes=classes - len(rows),
            dropped=len(theirs.head["bias"]) - len(rows),
            note=note,
        )


def load_initial_weights(
    model: nn.Module,
    path_or_name: str | os.PathLike[str],
    *,
    only_encoder: bool = False,
    key: Mapping[str, int] | None = None,
) -> WeightSummary:
    """Copy from a file what fits `model` by meaning; the model is changed only if everything fits.

    The encoder must be there and fit. The decoder is copied if both sides have one, and must fit then. The flat head
    goes row by row: the row of a code is copied wherever both sides have that code. Where the coding systems are the
    same, that is the whole head. Files of the mixer, of the flat classifier and of the bare encoder will do.

    Parameters
    ----------
    model
        A mixer, `Seq2SeqOccCANINE` or flat classifier; unwrapped.
    path_or_name
        As for `InitialWeights.read`.
    only_encoder
        Take the encoder alone.
    key
        Class index of each code of this run; None where the classes are those of HISCO or OCC1950.

    Raises
    ------
    UsageError
        See `read_state_dict`; or the encoder or the decoder does not fit, with the sizes of both.
    """
    return InitialWeights.read(path_or_name).load_into(model, only_encoder=only_encoder, key=key)


class _Parts(NamedTuple):
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    head: dict[str, Tensor]

    @property
    def has_head(self) -> bool:
        return self.head.keys() >= {"weight", "bias"}


def _parts_of(state: Mapping[str, Tensor], only_encoder: bool) -> _Parts:
    """The parts of a state dict, under names without their prefixes; encoder alone where nothing else is wanted."""
    if any(name.startswith("char_embeddings.") for name in state):  # a bare encoder has parts named encoder.* itself
        return _Parts(dict(state), {}, {})
    encoder = _part(state, _ENCODER_PREFIXES)
    if only_encoder:
        return _Parts(encoder, {}, {})
    return _Parts(encoder, _part(state, (_DECODER_PREFIX,)), _part(state, _HEAD_PREFIXES))


def kind_of_model(names: Collection[str]) -> str | None:
    """What a state dict belongs to, by its names: 'flat', 'mixer', 'seq2seq' (a decoder alone); None for others."""
    has = {prefix: any(name.startswith(prefix) for name in names) for prefix in (*_ENCODER_PREFIXES, *_HEAD_PREFIXES)}
    if has["basemodel."]:
        return "flat"
    if not has["encoder."] or not any(name.startswith(_DECODER_PREFIX) for name in names):
        return None
    return "mixer" if has["linear_decoder."] else "seq2seq"


def num_classes_of(state: Mapping[str, Tensor]) -> int | None:
    """C, the classes of a state dict's flat head; None where it has none."""
    bias = next((state[prefix + "bias"] for prefix in _HEAD_PREFIXES if prefix + "bias" in state), None)
    return None if bias is None or bias.dim() != 1 else len(bias)


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
    rows = [(theirs[code], row) for code, row in ours.items() if code in theirs and row < num_ours]
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


def _check_values(found: Entries, theirs: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for name, wanted in own.items():
        if name in theirs and wanted.is_floating_point() and not theirs[name].is_floating_point():
            found.refuse(name, theirs[name], "a tensor of floating-point numbers")
        elif name in theirs:
            found.check(name, theirs[name], tensor(wanted.shape))


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


def file_of_weights(path: str | os.PathLike[str]) -> Path:
    """The file that `read_state_dict` reads for a path; of a run's folder the best weights.

    Raises
    ------
    UsageError
        There is none.
    """
    path = Path(path)
    fault = fault_of_file(path)
    if fault is None:
        return path
    if fault == IS_FOLDER:
        for name in WEIGHT_FILES:
            if fault_of_file(path / name) is None:
                return path / name
        return _best_of_run(path)
    with_ending = path.with_name(path.name + ".bin") if path.name else path
    if fault_of_file(with_ending) is None:
        return with_ending
    if fault != IS_MISSING:
        raise UsageError(f"{path} {fault}: weights are read from a file")
    published = ", ".join(PUBLISHED_MODELS)
    raise UsageError(f"{path}: there is no such checkpoint (a file, or one of: {published})")


def _best_of_run(folder: Path) -> Path:
    """The file of a run's folder with its best weights, else with its last ones."""
    best, last = folder / run_folder.BEST_CHECKPOINT, folder / run_folder.LAST_CHECKPOINT
    if fault_of_file(best) is None:
        return best
    if fault_of_file(last) is not None:
        raise UsageError(
            f"the folder {folder} holds no weights: neither {', '.join(WEIGHT_FILES)} nor the {best.name} or "
            f"{last.name} of a run"
        )
    # A run of train.py says in its checkpoint what its best weights are called.
    content = read_torch_file(last)
    name = content.get("best_weights") if isinstance(content, Mapping) else None
    if isinstance(name, str) and fault_of_file(folder / Path(name).name) is None:
        return folder / Path(name).name
    return last


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise DamagedFile(f"{path}: the file is damaged ({first_line(error)}); fetch or copy it again") from error


def _fetch(repository: str) -> Path:
    """The published weights, from the local cache or the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    out_of_reach = why_out_of_reach()
    reason = ""
    for name in WEIGHT_FILES:
        try:
            with without_retry_messages():
                return Path(hf_hub_download(repository, name, local_files_only=out_of_reach is not None))
        except LocalEntryNotFoundError as error:
            reason = out_of_reach or str(error).strip().split("\n", 1)[0]
        except EntryNotFoundError:
            reason = f"it has no {' or '.join(WEIGHT_FILES)}"
        except (OSError, ValueError) as error:
            reason = first_line(error)
    raise UsageError(
        f"the published weights {repository} are not in the local cache and could not be fetched from the Hugging "
        f"Face hub ({reason}). Fetch them on a machine with network access and pass the file with --initial-checkpoint"
    )
