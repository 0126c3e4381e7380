"""Prediction, under the original's names."""

from histocc.model_assets import load_tokenizer as get_adapated_tokenizer
from histocc.prediction.occ_canine import BehaviorType, ModelType, OccCANINE, PredType
from histocc.prediction.thresholds import THRESHOLD_LOOKUP

__all__ = ["THRESHOLD_LOOKUP", "BehaviorType", "ModelType", "OccCANINE", "PredType", "get_adapated_tokenizer"]
