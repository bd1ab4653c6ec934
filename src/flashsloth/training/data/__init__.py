"""Training data: every format becomes the same samples, in an order that can be gone on with anywhere.

sample.py        one conversation, its place, and what makes one bad
conversation.py  turns and pictures, checked -> messages, or why not; the file that a picture's name means
layouts.py       a record as it is in the wild -> turns and pictures; turn_content.py: what stands in a turn
refused_files.py files that are something else; video, sound and other models' marks, which are refused
records.py       what all formats share; a folder, a pattern or a range -> files
json_data.py     JSON and JSONL, COCO and VQAv2; json_spans.py: where their samples stand, without keeping them
tables.py        CSV and Parquet; shards.py: WebDataset's tar files
world.py         the drawn world, drawn on the spot or before
mixture.py       the sources of a stage as one dataset: `conversations`, `patches`
sampler.py       which samples each epoch, optimizer step, micro-batch and device takes, in which order
overlap.py       held-out samples that are learned from too
workers.py       the processes that prepare batches; worker_process.py: their own side
bad_samples.py   the samples that are left out, and what stands in for them
answer_table.py  a table of pictures, questions and answers -> training data
"""

from flashsloth.training.data.bad_samples import BAD_SAMPLES_FILE, BadSamples, GoodSamples, TooManyBadSamplesError
from flashsloth.training.data.json_data import JsonData, JsonlData
from flashsloth.training.data.mixture import Joined, conversations, open_source, patches
from flashsloth.training.data.sample import KINDS, BadSampleError, DataError, Sample, Where
from flashsloth.training.data.sampler import StepBatchSampler
from flashsloth.training.data.shards import ShardData
from flashsloth.training.data.tables import ParquetData
from flashsloth.training.data.world import WorldData

__all__ = [
    "BAD_SAMPLES_FILE",
    "KINDS",
    "BadSampleError",
    "BadSamples",
    "DataError",
    "GoodSamples",
    "Joined",
    "JsonData",
    "JsonlData",
    "ParquetData",
    "Sample",
    "ShardData",
    "StepBatchSampler",
    "TooManyBadSamplesError",
    "Where",
    "WorldData",
    "conversations",
    "open_source",
    "patches",
]
