"""Trained models from files, folders and the hub, of this package and of the original, with their coding systems."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from histocc.datasets import hisco_codes
from histocc.errors import UsageError, did_you_mean
from histocc.files import run_folder
from histocc.files.hub import may_be_on_the_hub
from histocc.files.key import read_key
from histocc.formatter import CodingSystem, coding_system, general_system
from histocc.formatter.general import WITHIN_BLOCK_SEP
from histocc.formatter.systems import SYSTEMS
from histocc.layers.decoder import MAX_TARGET_LENGTH
from histocc.model_assets import encoder_config, encoder_settings
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.published import (
    CHARACTERS_FILE,
    CONFIGURATION_FILE,
    KEY_FILE,
    PUBLISHED_SYSTEMS,
    fetch,
    fetch_weights,
    repository_of,
)
from histocc.prediction.thresholds import THRESHOLD_LOOKUP
from histocc.stored_model import (
    MODEL_ENTRY,
    SYSTEM_ENTRY,
    ModelSettings,
    build_model,
    describes_model,
    read_description,
    rebuild_model,
)
from histocc.weights import WEIGHT_FILES, class_codes, kind_of_model, read_state_dict

if TYPE_CHECKING:
    from transformers import CanineConfig, CanineModel

HISCO = "hisco"
# Of the original's models.
MAX_LEN = 128
_MOST_CODES = 4


@dataclass(frozen=True)
class OriginalOptions:
    """What files of the original do not say themselves; files of this package need none of it.

    Parameters
    ----------
    system
        The coding system.
    use_within_block_sep
        Codes are lists of parts such as ``1,13,0,0``.
    target_cols
        The code columns that the decoder was trained with, ``{system}_1`` to ``{system}_4`` by default.
    encoder
        Folder with a `config.json`, or a configuration; that of CANINE-s by default.
    block_size
        Tokens of a code that the decoder was trained with; by default the length of the key's longest code.
    flags
        Of a command line, the flags that are given of these. Such a flag is an error where the file says the same
        itself, and messages name flags. None where arguments were given.
    """

    system: str = HISCO
    use_within_block_sep: bool = False
    target_cols: Sequence[str] | None = None
    encoder: str | os.PathLike[str] | CanineConfig | None = None
    block_size: int | None = None
    flags: Collection[str] | None = None

    def called(self, flag: str, argument: str) -> str:
        """What messages call one of these, on a command line or in Python."""
        return argument if self.flags is None else flag

    def refuse_needless(self, source: str, says: str, *needed: str) -> None:
        """Raise UsageError where flags are given, but for `needed` ones, of which the file says everything itself."""
        needless = [flag for flag in self.flags or () if flag not in needed]
        if needless:
            raise UsageError(f"{source} {says}: leave out {', '.join(needless)}")


def load_model(
    name: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    hub: bool = True,
    force_download: bool = False,
    system: str | None = HISCO,
    use_within_block_sep: bool = False,
    target_cols: Sequence[str] | None = None,
    encoder: str | os.PathLike[str] | CanineConfig | None = None,
    block_size: int | None = None,
    flags: Collection[str] | None = None,
) -> LoadedModel:
    """Load a trained model.

    Parameters
    ----------
    name
        A file, with or without its ending ``.bin``; a run's folder, of which the best weights are taken; an exported
        folder; or, with `hub`, a published model or another of the hub, ``owner/name``.
    device
        Where it is to compute.
    hub
        Whether `name` may be one of the hub's. A published name wins over a file, a file over other names.
    force_download
        Fetch anew what the local cache has.
    system, use_within_block_sep, target_cols, encoder, block_size, flags
        See `OriginalOptions`; None is the default system.

    Raises
    ------
    UsageError
        There is no such model, its file is damaged, holds pickled objects or no model, or its key, encoder or alphabet
        do not fit; the message says what to do.
    """
    system = HISCO if system is None else system
    options = OriginalOptions(system, use_within_block_sep, target_cols, encoder, block_size, flags)
    name = os.fspath(name)
    path = Path(name).expanduser()
    if hub and name in PUBLISHED_SYSTEMS:
        options.refuse_needless(name, f"is a published model, of the system {PUBLISHED_SYSTEMS[name]}", "--encoder")
        if system == HISCO:
            options = replace(options, system=PUBLISHED_SYSTEMS[name])
        files = _read_from_hub(name, force_download)
    else:
        check_name(name, hub=hub)
        here = path.exists() or _with_suffix(path).is_file()
        files = _read_from_disk(path) if here else _read_from_hub(name, force_download)
    loaded = _assemble(files, options)
    loaded.model.to(device)
    return loaded


def check_name(name: str | os.PathLike[str], *, hub: bool = True) -> None:
    """Raise UsageError where `load_model` could find no model of this name; nothing is read or fetched."""
    name = os.fspath(name)
    path = Path(name).expanduser()
    if (hub and name in PUBLISHED_SYSTEMS) or path.exists() or _with_suffix(path).is_file():
        return
    if hub and "/" in name and may_be_on_the_hub(name):
        return
    published = f", or the name of a published model: {', '.join(PUBLISHED_SYSTEMS)}" if hub else ""
    names = list(PUBLISHED_SYSTEMS) if hub else []
    with contextlib.suppress(OSError):
        names += [str(Path(name).with_name(each.name)) for each in path.parent.iterdir()]
    near = did_you_mean(name, names)
    raise UsageError(f"{name}: there is no such checkpoint{near} (a file or a folder{published})")


def _with_suffix(path: Path) -> Path:
    return path.with_name(path.name + run_folder.CHECKPOINT_SUFFIX)


def untrained_model(
    kind: str,
    device: torch.device | str,
    system: str = HISCO,
    encoder: Any = None,
    pretrained: CanineModel | None = None,
) -> LoadedModel:
    """A model with random weights.

    Parameters
    ----------
    kind
        'flat', 'seq2seq' or 'mixer'.
    device
        Where it is to compute.
    system
        A system that has a list of all codes.
    encoder
        As in `OriginalOptions`.
    pretrained
        A ready encoder to take the weights from.

    Raises
    ------
    UsageError
        The codes of the system are not known without a key.
    """
    name = system.lower()
    if name not in SYSTEMS or coding_system(name).codes is None:
        with_codes = ", ".join(name for name in SYSTEMS if coding_system(name).codes is not None)
        raise UsageError(f"a model without weights needs a system whose codes are known ({with_codes}), not {system!r}")
    config = _encoder_config(encoder, {}) if pretrained is None else pretrained.config
    coding, settings = coding_system(name), _settings_of_original(kind, config)
    model = build_model(coding, settings)
    if pretrained is not None:
        (model.basemodel if kind == "flat" else model.encoder).load_state_dict(pretrained.state_dict())
    return LoadedModel(model.to(device).eval(), coding, settings, system, "random weights", None, None, None, {})


# --- Where the files are ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """What was read of a model."""

    path: Path
    source: str
    weights: Mapping[str, Tensor]
    entries: Mapping[str, Any]  # of the checkpoint or of config.json
    key: Mapping[str, int] | None
    characters: Sequence[str] | None
    published: bool = False


def _read_from_hub(name: str, force_download: bool) -> _Files:
    repository = repository_of(name)
    path = fetch_weights(repository, force_download)
    weights, entries = read_state_dict(path)
    described, key, characters = (
        fetch(repository, file, force_download) for file in (CONFIGURATION_FILE, KEY_FILE, CHARACTERS_FILE)
    )
    if described is not None:
        entries = {**read_description(described), **entries}
    return _Files(
        path,
        repository,
        weights,
        entries,
        None if key is None else _key_in(key),
        None if characters is None else _characters_in(characters),
        published=True,
    )


def _read_from_disk(path: Path) -> _Files:
    path = _weights_in(path)
    weights, entries = read_state_dict(path)
    path = path if path.is_file() else path.with_name(path.name + run_folder.CHECKPOINT_SUFFIX)
    key = characters = None
    beside = path.with_name
    if path.name in WEIGHT_FILES:  # laid out as on the hub
        if beside(CONFIGURATION_FILE).is_file():
            entries = {**read_description(beside(CONFIGURATION_FILE)), **entries}
        key = _key_in(beside(KEY_FILE)) if beside(KEY_FILE).is_file() else None
        characters = _characters_in(beside(CHARACTERS_FILE)) if beside(CHARACTERS_FILE).is_file() else None
    elif not describes_model(entries):
        entries = {**_described_beside(path), **entries}
    if entries.get("key") is not None:
        key = _key_of(entries["key"], f"the entry 'key' of {path}")
    elif key is None and not describes_model(entries) and beside(run_folder.KEY).is_file():
        key = read_key(beside(run_folder.KEY))
    return _Files(path, str(path), weights, entries, key, characters)


def _weights_in(path: Path) -> Path:
    """The file to read: `path` itself, or the best weights in a folder."""
    if not path.is_dir():
        return path
    for name in (*WEIGHT_FILES, run_folder.BEST_CHECKPOINT):
        if (path / name).is_file():
            return path / name
    # A run of train.py says in its checkpoint what its best weights are called.
    last = path / run_folder.LAST_CHECKPOINT
    if last.is_file():
        _, entries = read_state_dict(last)
        best = entries.get("best_weights")
        if isinstance(best, str) and (path / Path(best).name).is_file():
            return path / Path(best).name
        return last
    raise UsageError(f"the folder {path} holds no model: neither checkpoints of a run nor an exported model")


def _described_beside(path: Path) -> dict[str, Any]:
    """What the checkpoint of a run of train.py says of its weights, which stand alone in files beside it."""
    last = path.with_name(run_folder.LAST_CHECKPOINT)
    if not last.is_file() or path == last:
        return {}
    _, entries = read_state_dict(last)
    best = entries.get("best_weights")
    if not isinstance(best, str) or not describes_model(entries):
        return {}
    name = Path(best).stem
    return entries if path.name in (best, run_folder.newest_weights(name)) else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error


def _key_in(path: Path) -> dict[str, int]:
    return _key_of(_read_json(path), str(path))


def _key_of(content: Any, source: str) -> dict[str, int]:
    """A key whose classes are 0, 1, ..., n - 1, in their order."""
    key = content if isinstance(content, Mapping) else {}
    indices = list(key.values())
    if not key or not all(isinstance(index, int) for index in indices) or sorted(indices) != list(range(len(key))):
        raise UsageError(f"{source} is no key: the class of each code is needed, 0 to n - 1, each once")
    return {str(code): key[code] for code in sorted(key, key=key.__getitem__)}


def _characters_in(path: Path) -> list[str]:
    """An alphabet in the order of its tokens, from a list or from the token of each character."""
    content = _read_json(path)
    if isinstance(content, Mapping) and all(isinstance(token, int) for token in content.values()):
        content = sorted(content, key=content.__getitem__)
    if not isinstance(content, list) or not all(isinstance(character, str) for character in content):
        raise UsageError(f"{path} is no alphabet: a list of characters is needed")
    return content


# --- What they make ---------------------------------------------------------------------------------------------------


def _assemble(files: _Files, options: OriginalOptions) -> LoadedModel:
    assumed = None
    if describes_model(files.entries):
        stored = rebuild_model(files.weights, files.entries, files.source)
        options.refuse_needless(files.source, f"says itself what it is, {_spoken(stored.system)}, and its encoder")
        model, system, settings = stored.model, stored.system, stored.settings
        label = _label(system) if options.system == HISCO else options.system
        languages = stored.entries.get("languages")
    else:
        system, settings = _describe_original(files, options)
        model = build_model(system, settings)
        _check_fit(files, model.state_dict(), options)
        model.load_state_dict(files.weights)
        label = options.system
        assumed = _assumption(files.source, system, settings, options)
        languages = THRESHOLD_LOOKUP if files.published and system.name == HISCO else None
    return LoadedModel(
        model.eval(),
        system,
        settings,
        label,
        files.source,
        None if languages is None else frozenset(languages),
        None if files.published else files.path.parent,
        identity_of(files.path),
        {name: entry for name, entry in files.entries.items() if name not in (SYSTEM_ENTRY, MODEL_ENTRY)},
        published=files.published,
        thresholds_file=files.path.with_name(run_folder.THRESHOLDS),
        assumed=assumed,
    )


def _spoken(system: CodingSystem) -> str:
    """A coding system in words."""
    formatter = system.formatter
    unit = "parts" if getattr(formatter, "within_block_sep", None) else "characters"
    classes = f"{system.num_classes:,} codes" if system.codes is not None else "codes"
    name = f"{system.name}: " if system.name in SYSTEMS else ""
    return f"{name}{classes} of up to {formatter.block_size} {unit}, up to {formatter.max_num_codes} a text"


def _assumption(source: str, system: CodingSystem, settings: ModelSettings, options: OriginalOptions) -> str | None:
    """What to tell people who gave flags too few to be sure of a decoder's blocks; None where nothing is assumed."""
    if options.flags is None or settings.kind == "flat" or system.name in SYSTEMS:
        return None
    open_flags = [
        flag
        for flag, value in (("--target-cols", options.target_cols), ("--block-size", options.block_size))
        if not value
    ]
    if not open_flags:
        return None
    return (
        f"{source} does not say how its codes are written; it is taken to have {_spoken(system)}. If it was trained "
        f"otherwise its codes are wrong: say so with {' and '.join(open_flags)}, as they were given to finetune.py"
    )


def _describe_original(files: _Files, options: OriginalOptions) -> tuple[CodingSystem, ModelSettings]:
    kind = kind_of_model(files.weights)
    if kind is None:
        first = next(iter(files.weights))
        raise UsageError(f"{files.source} holds no model that predicts: its entries are not named so ({first} is one)")
    head = {"flat": "out.bias", "mixer": "linear_decoder.bias"}.get(kind)
    classes = len(files.weights[head]) if head in files.weights else None
    feedforward = files.weights.get("decoder.decoder.layers.0.linear1.bias")
    settings = _settings_of_original(
        kind, _encoder_config(options.encoder, files.entries), None if feedforward is None else len(feedforward)
    )
    return _system_of_original(files, options, classes), settings


def _settings_of_original(kind: str, encoder: CanineConfig, feedforward: int | None = None) -> ModelSettings:
    return ModelSettings(kind, MAX_LEN, feedforward, encoder=encoder_settings(encoder), lowercase=True, ascii_only=True)


def identity_of(path: Path) -> list[Any]:
    """What tells a file of weights from another: its place, size and time."""
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def _label(system: CodingSystem) -> str:
    """The stem of columns that are numbered `<stem>_1`, `<stem>_2`, ...; else the name of the system."""
    stems = {column.removesuffix(f"_{i}") for i, column in enumerate(system.columns, start=1)}
    numbered = all(column.endswith(f"_{i}") for i, column in enumerate(system.columns, start=1))
    if system.name in SYSTEMS or not numbered or len(stems) != 1:
        return system.name if system.name in SYSTEMS else system.columns[0]
    return stems.pop()


def _system_of_original(files: _Files, options: OriginalOptions, classes: int | None) -> CodingSystem:
    """The system of a file that does not say which it has."""
    name = options.system.lower()
    if name == HISCO:
        return _hisco(files, classes, options)
    key = files.key if files.key is not None or classes is None else class_codes(None, classes)
    if key is None:
        raise UsageError(
            f"{files.source} has no key that says which code each class is: put a {run_folder.KEY} with the columns "
            f"system_code and code beside it"
        )
    if classes is not None and classes != len(key):
        raise UsageError(f"{files.source} has {classes:,} classes and its key {len(key):,} codes: it is another key")
    columns = options.target_cols or [f"{options.system}_{i}" for i in range(1, _MOST_CODES + 1)]
    separator = options.use_within_block_sep
    block_size = _block_size(files, list(key), len(columns), options)
    general = general_system(
        block_size, columns, chars=files.characters, use_within_block_sep=separator, key=key
    )  # fmt: skip
    candidates = [general]
    if name in SYSTEMS:
        candidates.insert(0, coding_system(name).with_key(key))
    tokens = files.weights.get("decoder.head.bias")
    if tokens is None:
        return candidates[0]
    for candidate in candidates:
        if max(candidate.formatter.num_classes) + 1 == len(tokens):
            if candidate is not general:
                options.refuse_needless(files.source, f"is a model of {_spoken(candidate)}", "--system", "--encoder")
            return candidate
    raise UsageError(
        f"the decoder in {files.source} writes {len(tokens):,} tokens, and the general alphabet makes "
        f"{max(general.formatter.num_classes) + 1:,}: it was trained with an alphabet of its own, which belongs in a "
        f"{CHARACTERS_FILE} beside its {WEIGHT_FILES[0]}, or with another system than {options.system!r}"
    )


def _block_size(files: _Files, codes: Sequence[str], columns: int, options: OriginalOptions) -> int:
    """Tokens of a code of one's own: as the options say, or as many as the longest code has.

    Raises
    ------
    UsageError
        Codes are lists of parts and the options say otherwise, or the reverse; codes are longer; or so many codes of
        this length are more than a decoder writes.
    """
    separator = options.use_within_block_sep
    with_parts = [code for code in codes if WITHIN_BLOCK_SEP in code]
    flag = options.called("--use-within-block-sep", "use_within_block_sep=True")
    if with_parts and not separator and files.characters is None:
        raise UsageError(f"codes of {files.source} are lists of parts, such as {with_parts[0]!r}: give {flag}")
    if separator and not with_parts:
        listed = ", ".join(map(repr, codes[:3]))
        raise UsageError(f"no code of {files.source} is a list of parts ({listed}, ...): leave out {flag}")
    lengths = {code: len(code.split(WITHIN_BLOCK_SEP)) if separator else len(code) for code in codes}
    longest = max(lengths, key=lengths.__getitem__)
    size = lengths[longest] if options.block_size is None else options.block_size
    if size < lengths[longest]:
        raise UsageError(
            f"the code {longest!r} of {files.source} has {lengths[longest]} {'parts' if separator else 'characters'}, "
            f"more than {options.called('--block-size', 'block_size=')} {size}: give what it was trained with"
        )
    if size * columns > MAX_TARGET_LENGTH - 1:
        raise UsageError(
            f"{columns} codes of {size} tokens are more than a decoder writes, {MAX_TARGET_LENGTH - 1} tokens in all: "
            f"give the code columns that {files.source} was trained with "
            f"({options.called('--target-cols', 'target_cols=')})"
        )
    return size


def _hisco(files: _Files, classes: int | None, options: OriginalOptions) -> CodingSystem:
    system = coding_system(HISCO)
    if files.key is not None and (classes is None or classes == len(files.key)):
        # Codes may have lost a leading zero; the order of the classes is that of the key.
        codes = [code if code.startswith("-") else code.zfill(system.formatter.block_size) for code in files.key]
        if set(codes) <= set(hisco_codes()):
            options.refuse_needless(files.source, f"is a model of {_spoken(system)}", "--system", "--encoder")
            return system.with_key({code: index for index, code in enumerate(codes)})
    elif classes in (None, system.num_classes):
        options.refuse_needless(files.source, f"is a model of {_spoken(system)}", "--system", "--encoder")
        return system
    shown = "" if files.key is None else f", {', '.join(list(files.key)[:3])} among them"
    how = options.called(
        "--system (any name, for codes of one's own), and say with --target-cols and --block-size what it was trained "
        "with, as given to finetune.py",
        "system='name'",
    )
    raise UsageError(
        f"{files.source} is no HISCO model: it has {classes or len(files.key or ()):,} codes{shown}. Name its system "
        f"with {how}"
    )


def _encoder_config(encoder: str | os.PathLike[str] | CanineConfig | None, entries: Mapping[str, Any]) -> CanineConfig:
    from transformers import CanineConfig

    if isinstance(encoder, CanineConfig):
        return encoder
    if encoder is None:
        # In the configuration of a published model, as its class in model_assets understands it.
        described, domain = entries.get("encoder"), entries.get("model_domain")
        if isinstance(described, Mapping):
            return encoder_config(described)
        if not isinstance(domain, str) or not (Path(domain) / CONFIGURATION_FILE).is_file():
            return CanineConfig()
        encoder = domain
    path = Path(encoder) / CONFIGURATION_FILE if Path(encoder).is_dir() else Path(encoder)
    content = read_description(path)
    if content.get("model_type", "canine") != "canine":
        raise UsageError(f"{path} does not describe a CANINE encoder (encoder=)")
    known = CanineConfig().to_dict()
    return encoder_config({name: value for name, value in content.items() if name in known})


def _check_fit(files: _Files, wanted: Mapping[str, Tensor], options: OriginalOptions) -> None:
    found = files.weights
    misfits = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    faults = misfits or [name for name in wanted if name not in found] or [name for name in found if name not in wanted]
    if not faults:
        return
    name = faults[0]
    there, here = (f"{list(state[name].shape)}" if name in state else "missing" for state in (found, wanted))
    message = f"the weights in {files.source} do not fit the model: {name} is {there} there and {here} here"
    if name.startswith(("encoder.", "basemodel.")):
        assumed = "what it was trained with" if options.encoder is None else "another one"
        message += f". Its encoder is not the one assumed: give {assumed} with " + options.called(
            "--encoder, a folder with its config.json", "encoder=, a folder or a CanineConfig"
        )
    raise UsageError(message)
