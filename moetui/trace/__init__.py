"""What one forward pass did, how it is stored, and the protocols that pass it on."""

from moetui.trace.contexts import ContextReadings
from moetui.trace.document import TraceDocument, to_json, trace_document
from moetui.trace.engine import (
    Ending,
    Engine,
    Failure,
    Phase,
    Recording,
    Snapshot,
    Study,
    Watcher,
    each,
)
from moetui.trace.expert_sources import ExpertSources
from moetui.trace.file import open_trace, save_trace
from moetui.trace.forward import Forward, Prompt
from moetui.trace.head_sources import HeadSources
from moetui.trace.interventions import (
    AddLogits,
    AddToPart,
    Ban,
    Deselect,
    Drop,
    Force,
    Intervention,
    Merge,
    Part,
    PatchPart,
    Remap,
    Reweigh,
    ScalePart,
    TopK,
    describe,
)
from moetui.trace.join import join
from moetui.trace.lenses import TunedLens, WordReadout
from moetui.trace.shares import Shares
from moetui.trace.types import (
    NO_EXPERT,
    LensReadout,
    ModelInfo,
    RouterSources,
    Streams,
    TokenKind,
    Trace,
)

__all__ = [
    "NO_EXPERT",
    "AddLogits",
    "AddToPart",
    "Ban",
    "ContextReadings",
    "Deselect",
    "Drop",
    "Ending",
    "Engine",
    "ExpertSources",
    "Failure",
    "Force",
    "Forward",
    "HeadSources",
    "Intervention",
    "LensReadout",
    "Merge",
    "ModelInfo",
    "Part",
    "PatchPart",
    "Phase",
    "Prompt",
    "Recording",
    "Remap",
    "Reweigh",
    "RouterSources",
    "ScalePart",
    "Shares",
    "Snapshot",
    "Streams",
    "Study",
    "TokenKind",
    "TopK",
    "Trace",
    "TraceDocument",
    "TunedLens",
    "Watcher",
    "WordReadout",
    "describe",
    "each",
    "join",
    "open_trace",
    "save_trace",
    "to_json",
    "trace_document",
]
