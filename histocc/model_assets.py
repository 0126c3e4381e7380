"""The models: CANINE as encoder, with a decoder and a linear head, and where their pretrained parts come from."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from histocc.errors import UsageError
from histocc.files import entries
from histocc.files.entries import Entries, shown
from histocc.files.hub import may_be_on_the_hub, why_out_of_reach, without_progress_bars, without_retry_messages
from histocc.files.ordinary import IS_FOLDER, fault_of_file, near_names
from histocc.files.tensors import tensor
from histocc.files.torch_files import first_line
from histocc.layers.attention import use_fused_attention
from histocc.layers.canine import encode, encode_pooled
from histocc.layers.decoder import MAX_TARGET_LENGTH, TransformerDecoder
from histocc.weights import read_state_dict

if TYPE_CHECKING:
    from transformers import CanineConfig, CanineModel, CanineTokenizer

__all__ = [
    "CANINEOccupationClassifier",
    "CANINEOccupationClassifier_hub",
    "Seq2SeqMixerOccCANINE",
    "Seq2SeqMixerOccCANINE_hub",
    "Seq2SeqOccCANINE",
    "Seq2SeqOccCANINE_hub",
    "encode_pooled",
    "getModel",
    "load_model_from_checkpoint",
    "load_tokenizer",
]

MODEL_DOMAINS = {"Multilingual_CANINE": "google/canine-s"}
NUM_DECODER_LAYERS = 3
NUM_DECODER_HEADS = 8
# What a configuration says of where it was saved, and by what.
_NOT_OF_THE_ENCODER = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"})


def modelPath(model_domain: str, model_size: str = "") -> str:
    """The hub name or folder that `model_domain` stands for; there is one size of each."""
    return MODEL_DOMAINS.get(model_domain, str(model_domain))


def getModel(
    model_domain: str = "Multilingual_CANINE", model_size: str = "", *, flag: str | None = None
) -> CanineModel:
    """The pretrained encoder, in float32.

    Parameters
    ----------
    model_domain
        `'Multilingual_CANINE'` (google/canine-s), the name of a CANINE model on the Hugging Face hub,
        or a local folder with `config.json` and weights.
    model_size
        Accepted for callers of old: there is one size.
    flag
        The command-line flag that takes its name, for messages; None: they name the arguments of the models.

    Raises
    ------
    UsageError
        It cannot be found or reached, is no CANINE, or lacks some of the weights.
    """
    from transformers import CanineConfig, CanineModel

    name = modelPath(model_domain)
    remedy = _remedy(flag)
    _check_place(name, remedy)
    out_of_reach = None if os.path.isdir(name) else why_out_of_reach()
    cache_alone = {"local_files_only": out_of_reach is not None}
    try:
        with without_retry_messages(), without_progress_bars():
            described, _ = CanineConfig.get_config_dict(name, **cache_alone)
    except Exception as error:  # The hub, or a file of any content: what cannot be read is told with its remedy.
        raise UsageError(f"{_not_read(name)} ({out_of_reach or first_line(error)}). {remedy}") from error
    kind = described.get("model_type") if isinstance(described, dict) else None
    if kind != "canine":
        found = f"is a {shown(kind)} model" if kind else "has no config.json of a model"
        raise UsageError(f"the encoder '{name}' {found}; a CANINE model is needed. {remedy}")
    # What does not shape the encoder is left alone: it may be of another version, or ask for more than weights.
    described = {key: value for key, value in described.items() if key in _settings()}
    config = encoder_config(described, f"{name}/config.json")
    try:
        with without_retry_messages(), without_progress_bars():
            model, report = CanineModel.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, **cache_alone
            )
    except Exception as error:  # Whatever a damaged file makes of the libraries that read it.
        raise UsageError(f"{_not_read(name)} ({out_of_reach or first_line(error)}). {remedy}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UsageError(
            f"the encoder '{name}' lacks {len(missing)} of CANINE's weights, {missing[0]} for one; "
            f"take a complete one. {remedy}"
        )
    found = Entries(f"the encoder '{name}'", remedy)
    for entry, weight in model.named_parameters():
        found.check(entry, weight, tensor())
    found.raise_if_any()
    return model


def _remedy(flag: str | None) -> str:
    fetch = "Fetch google/canine-s once on a machine with network access and"
    if flag is None:
        return (
            f"{fetch} give its folder (with config.json and model.safetensors) as model_domain. A model can also be "
            "made with encoder=, a ready CanineModel or, for random weights, a CanineConfig, and fetches nothing then"
        )
    return (
        f"{fetch} pass its folder with {flag} FOLDER (a folder with config.json and model.safetensors). To try "
        f"commands, {flag} demo is a small encoder with random weights"
    )


def _check_place(name: str, remedy: str) -> None:
    """Raise UsageError where a local encoder is no folder of ordinary files, which alone end when they are read."""
    if os.path.isdir(name):
        for file in sorted(os.listdir(name)):
            fault = fault_of_file(os.path.join(name, file))
            if fault not in (None, IS_FOLDER):
                raise UsageError(f"the folder '{name}' holds no encoder that can be read: {file} {fault}. {remedy}")
    elif os.path.lexists(name):
        raise UsageError(f"the encoder '{name}' {fault_of_file(name) or 'is a file'} and no folder. {remedy}")
    elif name not in MODEL_DOMAINS.values() and not may_be_on_the_hub(name):
        raise UsageError(
            f"the encoder '{name}' is not there: there is no such folder{near_names(name)}, and it is no name "
            f"(owner/name) of a model on the Hugging Face hub. {remedy}"
        )


def _not_read(name: str) -> str:
    if os.path.isdir(name):
        return f"the folder '{name}' holds no encoder that can be read"
    return (
        f"the encoder '{name}' is neither a local folder nor in the local cache, and could not be fetched from the "
        f"Hugging Face hub"
    )


def load_tokenizer(model_domain: str = "Multilingual_CANINE", model_size: str = "") -> CanineTokenizer:
    """The tokenizer of google/canine-s, which serves every CANINE: ids are code points, so no files are needed.

    Parameters
    ----------
    model_domain
        Accepted as for `getModel`.
    model_size
        Accepted as for `getModel`.
    """
    return copy.deepcopy(_tokenizer())


@functools.cache
def _tokenizer() -> CanineTokenizer:
    # To be made takes it seconds, for a table of all code points; to be copied, nothing.
    from transformers import CanineTokenizer

    return CanineTokenizer(model_max_length=2048)


def load_model_from_checkpoint(
    checkpoint_path: str | os.PathLike[str], model: nn.Module, model_domain: str = "Multilingual_CANINE"
) -> tuple[nn.Module, CanineTokenizer]:
    """Load all weights of `model` from a checkpoint.

    Parameters
    ----------
    checkpoint_path
        A state dict or a training checkpoint, with or without its ending `.bin`.
    model
        The model to fill, changed in place.
    model_domain
        Whose tokenizer to return.

    Raises
    ------
    UsageError
        The file is missing, damaged, holds pickled objects, or does not fit the model.
    """
    state, _ = read_state_dict(checkpoint_path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"{checkpoint_path} does not fit a {type(model).__name__}: {error}") from error
    return model, load_tokenizer(model_domain)


class CANINEOccupationClassifier(nn.Module):
    """CANINE's pooled encoding, dropout, and one linear layer: a logit for every class.

    Parameters
    ----------
    n_classes
        Number of classes, C.
    model_domain
        Where the pretrained encoder comes from, see `getModel`.
    dropout_rate
        Dropout before the linear layer.
    encoder
        A ready `CanineModel`, or a `CanineConfig` for random weights, instead of `model_domain`.
    fast_encoder
        Run only what the output depends on, on fused attention. The numbers are the same up to
        rounding; False runs transformers' own forward.
    """

    def __init__(
        self,
        n_classes: int,
        model_domain: str = "Multilingual_CANINE",
        dropout_rate: float | None = None,
        *,
        encoder: CanineModel | CanineConfig | None = None,
        fast_encoder: bool = True,
    ) -> None:
        super().__init__()
        self.basemodel = _build_encoder(model_domain, encoder, fast_encoder)
        self.fast_encoder = fast_encoder
        self.dropout = nn.Dropout(dropout_rate or 0.0)
        self.out = nn.Linear(self.basemodel.config.hidden_size, n_classes)

    @property
    def drop(self) -> nn.Dropout:
        """The dropout before the linear layer."""
        return self.dropout

    def resize_token_embeddings(self, n: int) -> None:
        """Ask the encoder for another vocabulary; CANINE has none, and refuses with NotImplementedError."""
        self.basemodel.resize_token_embeddings(n)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, groups: Sequence[tuple[int, int]] | None = None
    ) -> Tensor:
        """Logits [B, C] for int64 [B, L] ids and mask.

        L may be anything from the batch's longest text rounded up to a multiple of 4: padding has no effect.

        Parameters
        ----------
        input_ids
            Ids.
        attention_mask
            1 at characters, 0 at padding.
        groups
            (rows, width) of consecutive parts of the batch; each is run by itself with its first `width`
            columns, which must hold its texts. The numbers are those of the whole batch, up to rounding.
        """
        if groups is None or len(groups) == 1:
            return self.out(self.dropout(self.encode(input_ids, attention_mask)))
        sizes = [rows for rows, _ in groups]
        parts = zip(input_ids.split(sizes), attention_mask.split(sizes), groups)
        pooled = torch.cat([self.encode(ids[:, :width], mask[:, :width]) for ids, mask, (_, width) in parts])
        return self.out(self.dropout(pooled))

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The pooled encoding [B, hidden] for int64 [B, L] ids and mask."""
        if self.fast_encoder:
            return encode_pooled(self.basemodel, input_ids, attention_mask)
        return self.basemodel(input_ids=input_ids, attention_mask=attention_mask).pooler_output


class Seq2SeqOccCANINE(nn.Module):
    """CANINE with a transformer decoder that writes codes token by token.

    Parameters
    ----------
    model_domain
        Where the pretrained encoder comes from, see `getModel`.
    num_classes
        The formatter's `num_classes`, one size per position of the label (T of them).
    dropout_rate
        Dropout of the decoder and the flat head (none by default); the encoder keeps its own.
    decoder_dim_feedforward
        Feed-forward width of the decoder (the hidden size by default).
    encoder
        A ready `CanineModel`, or a `CanineConfig` for random weights, instead of `model_domain`.
    fast_encoder
        Fused attention and no superfluous work in the encoder. The numbers are the same up to
        rounding; False runs transformers' own forward.

    Raises
    ------
    UsageError
        Labels of more than 129 tokens, or a hidden size that 8 heads do not divide.
    """

    def __init__(
        self,
        model_domain: str,
        num_classes: Sequence[int],
        dropout_rate: float | None = None,
        decoder_dim_feedforward: int | None = None,
        *,
        encoder: CanineModel | CanineConfig | None = None,
        fast_encoder: bool = True,
    ) -> None:
        super().__init__()
        if len(num_classes) - 1 > MAX_TARGET_LENGTH:
            raise UsageError(
                f"labels are {len(num_classes)} tokens long (codes x block size + 2), and the decoder takes at most "
                f"{MAX_TARGET_LENGTH + 1}: use fewer code columns (--target-cols) or a smaller --block-size"
            )
        self.encoder = _build_encoder(model_domain, encoder, fast_encoder)
        self.fast_encoder = fast_encoder
        hidden_size = self.encoder.config.hidden_size
        if hidden_size % NUM_DECODER_HEADS:
            raise UsageError(
                f"the encoder's hidden size is {hidden_size}, and the decoder needs a multiple of {NUM_DECODER_HEADS}"
            )
        self.vocab_size = max(num_classes) + 1
        self.seq_len = len(num_classes)
        self.dropout_rate = dropout_rate or 0.0
        self.decoder_dim_feedforward = decoder_dim_feedforward or hidden_size
        self.decoder = TransformerDecoder(
            num_decoder_layers=NUM_DECODER_LAYERS,
            emb_size=hidden_size,
            nhead=NUM_DECODER_HEADS,
            vocab_size=self.vocab_size,
            dim_feedforward=decoder_dim_feedforward or hidden_size,
            dropout=dropout_rate or 0.0,
        )

    def resize_token_embeddings(self, n: int) -> None:
        """Ask the encoder for another vocabulary; CANINE has none, and refuses with NotImplementedError."""
        self.encoder.resize_token_embeddings(n)

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.fast_encoder:
            return encode(self.encoder, input_ids, attention_mask)
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return output.last_hidden_state, output.pooler_output

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Memory [B, L, hidden] for int64 [B, L] ids and mask."""
        return self._encode(input_ids, attention_mask)[0]

    def decode(
        self,
        memory: Tensor,
        target: Tensor,
        target_mask: Tensor | None = None,
        target_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T-1, V]; masks as `histocc.utils.create_mask` makes them. Padded text is attended to as well."""
        return self.decoder(memory, target, target_mask, target_padding_mask)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        target: Tensor,
        target_mask: Tensor | None = None,
        target_padding_mask: Tensor | None = None,
    ) -> Any:
        """Logits [B, T-1, V] for `target` = `targets_seq2seq[:, :-1]` (teacher forcing)."""
        memory = self.encode(input_ids, attention_mask)
        return self.decode(memory, target, target_mask, target_padding_mask)


class Seq2SeqMixerOccCANINE(Seq2SeqOccCANINE):
    """`Seq2SeqOccCANINE` with a linear head beside the decoder: a logit for each of `num_classes_flat` codes.

    The arguments are those of `Seq2SeqOccCANINE`, and `num_classes_flat`, C.
    """

    def __init__(
        self,
        model_domain: str,
        num_classes: Sequence[int],
        num_classes_flat: int,
        dropout_rate: float | None = None,
        decoder_dim_feedforward: int | None = None,
        *,
        encoder: CanineModel | CanineConfig | None = None,
        fast_encoder: bool = True,
    ) -> None:
        super().__init__(
            model_domain,
            num_classes,
            dropout_rate,
            decoder_dim_feedforward,
            encoder=encoder,
            fast_encoder=fast_encoder,
        )
        self.linear_decoder = nn.Linear(self.encoder.config.hidden_size, num_classes_flat)
        self.linear_decoder_drop = nn.Dropout(dropout_rate or 0.0)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Memory [B, L, hidden] and the pooled encoding [B, hidden] for int64 [B, L] ids and mask."""
        return self._encode(input_ids, attention_mask)

    def _linear_head(self, pooled: Tensor) -> Tensor:
        # Dropout on the logits, not before the layer: published checkpoints were trained this way.
        return self.linear_decoder_drop(self.linear_decoder(pooled))

    def forward_linear(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the linear head alone, [B, C]; the way back to characters is left out."""
        if self.fast_encoder:
            pooled = encode_pooled(self.encoder, input_ids, attention_mask)
        else:
            _, pooled = self._encode(input_ids, attention_mask)
        return self._linear_head(pooled)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        target: Tensor,
        target_mask: Tensor | None = None,
        target_padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits of the decoder [B, T-1, V] and of the linear head [B, C], for `target` = `targets_seq2seq[:, :-1]`."""
        memory, pooled = self.encode(input_ids, attention_mask)
        out_seq2seq = self.decode(memory, target, target_mask, target_padding_mask)
        return out_seq2seq, self._linear_head(pooled)


class _FromHub(PyTorchModelHubMixin):
    """Builds the encoder of a published model from its configuration: all weights come with the model.

    The entry `encoder` of `config` holds what differs from the defaults of `CanineConfig`, which are those of CANINE-s.
    Without it the configuration is that of the local folder `model_domain`, where there is one, or else the default. A
    model that is made directly, without this entry, takes its encoder from `model_domain` with pretrained weights.
    """

    @classmethod
    def _from_pretrained(cls, **options: Any) -> Any:
        config = options.get("config")
        if isinstance(config, dict) and "encoder" not in config:
            from transformers import CanineConfig

            domain = config.get("model_domain", "")
            local = CanineConfig.from_pretrained(domain) if os.path.isdir(domain) else CanineConfig()
            options["config"] = {**config, "encoder": encoder_settings(local)}
        return super()._from_pretrained(**options)


def _encoder_of(config: Mapping[str, Any]) -> CanineConfig | None:
    return encoder_config(config["encoder"]) if "encoder" in config else None


class CANINEOccupationClassifier_hub(CANINEOccupationClassifier, _FromHub):
    """`CANINEOccupationClassifier` for the hub: `config` holds `n_classes, model_domain, dropout_rate`.

    Optional: `encoder`, see `_FromHub`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(
            config["n_classes"], config["model_domain"], config.get("dropout_rate"), encoder=_encoder_of(config)
        )


class Seq2SeqOccCANINE_hub(Seq2SeqOccCANINE, _FromHub):
    """`Seq2SeqOccCANINE` for the hub: `config` holds `model_domain, num_classes`.

    Optional: `dropout_rate, decoder_dim_feedforward, encoder`, see `_FromHub`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(
            config["model_domain"],
            config["num_classes"],
            config.get("dropout_rate"),
            config.get("decoder_dim_feedforward"),
            encoder=_encoder_of(config),
        )


class Seq2SeqMixerOccCANINE_hub(Seq2SeqMixerOccCANINE, _FromHub):
    """`Seq2SeqMixerOccCANINE` for the hub: `config` holds `model_domain, num_classes, num_classes_flat`.

    Optional: `dropout_rate, decoder_dim_feedforward, encoder`, see `_FromHub`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(
            config["model_domain"],
            config["num_classes"],
            config["num_classes_flat"],
            config.get("dropout_rate"),
            config.get("decoder_dim_feedforward"),
            encoder=_encoder_of(config),
        )


def longest_input(config: CanineConfig) -> int:
    """The most ids L that an encoder of this configuration takes.

    transformers' table of positions has as many rows as there are hash buckets.
    """
    return min(config.max_position_embeddings, config.num_hash_buckets)


def encoder_settings(config: CanineConfig) -> dict[str, Any]:
    """The entries of a configuration that differ from the defaults, as plain values."""
    from transformers import CanineConfig

    default = CanineConfig().to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if name in default and name not in _NOT_OF_THE_ENCODER and value != default[name]
    }


@functools.lru_cache
def _settings() -> dict[str, entries.Check[Any]]:
    """What the entries of an encoder's configuration may hold; those that shape it, or decide its dropout."""
    from transformers.activations import ACT2FN

    share = entries.number(0, 1)
    positive = entries.whole(1, 2**20)
    return {
        "hidden_size": entries.whole(1, 2**14),
        "num_hidden_layers": entries.whole(1, 2**8),
        "num_attention_heads": entries.whole(1, 2**8),
        "intermediate_size": entries.whole(1, 2**17),
        "hidden_act": entries.one_of(*ACT2FN),
        "hidden_dropout_prob": share,
        "attention_probs_dropout_prob": share,
        "max_position_embeddings": positive,
        "type_vocab_size": positive,
        "initializer_range": share,
        "layer_norm_eps": share,
        # Four characters to a position: lengths and widths count on it.
        "downsampling_rate": entries.one_of(4),
        "upsampling_kernel_size": entries.whole(1, 2**8),
        "num_hash_functions": entries.whole(1, 2**8),
        "num_hash_buckets": entries.whole(1, 2**24),
        "local_transformer_stride": positive,
    }


def encoder_config(settings: Mapping[str, Any], source: str = "the encoder's settings") -> CanineConfig:
    """The configuration with these entries in place of the defaults.

    Parameters
    ----------
    settings
        The entries.
    source
        Where they are from, for messages.

    Raises
    ------
    UsageError
        The entries make no configuration.
    """
    from transformers import CanineConfig

    unknown = set(settings) - set(CanineConfig().to_dict())
    if unknown:
        raise UsageError(f"{source}: a CANINE encoder has no setting {shown(sorted(unknown)[0])}")
    found = Entries(source, "Take another encoder")
    # Other settings change nothing of what is computed here.
    shaping = {
        name: found.check(name, settings[name], check) for name, check in _settings().items() if name in settings
    }
    found.raise_if_any()
    config = CanineConfig(**shaping)
    for name in ("num_attention_heads", "num_hash_functions"):
        if config.hidden_size % getattr(config, name):
            found.refuse(name, getattr(config, name), f"a divisor of hidden_size, {config.hidden_size:,},")
    found.raise_if_any()
    return config


def _build_encoder(model_domain: str, encoder: CanineModel | CanineConfig | None, fast_encoder: bool) -> CanineModel:
    from transformers import CanineConfig, CanineModel

    if encoder is None:
        encoder = getModel(model_domain)
    elif isinstance(encoder, CanineConfig):
        encoder = CanineModel(encoder)
    return use_fused_attention(encoder) if fast_encoder else encoder
