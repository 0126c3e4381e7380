"""Prediction, under the original's names."""

from histocc.prediction.occ_canine import BehaviorType, ModelType, OccCANINE, PredType
from histocc.prediction.thresholds import THRESHOLD_LOOKUP

__all__ = ["THRESHOLD_LOOKUP", "BehaviorType", "ModelType", "OccCANINE", "PredType"]
