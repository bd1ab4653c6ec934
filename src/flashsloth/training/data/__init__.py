"""Training data: every format becomes the same samples, in an order that can be gone on with anywhere.

sample.py        one conversation, its place, and what makes one bad
conversation.py  turns and pictures, checked -> messages, or why not
layouts/         a record as it is in the wild -> turns and pictures, a reader for each way that people write them
unseen.py        video, sound and other models' marks, which are refused
picture_files.py the file that a picture's name means
json_spans.py    where the samples of a JSON or JSONL file stand, without keeping them
several_files.py a folder, a pattern or a range -> files; foreign_file.py: files that are something else
record_data.py   what all formats share; json_data.py, csv_data.py, parquet_data.py, shard_data.py: each of them
first_look.py    what is wrong with all of a source, said once
joined_json.py   COCO and VQAv2, whose samples stand in several lists
world_data.py    the drawn world; packed_world.py: drawn before
mixture.py       the sources of a stage as one dataset: `conversations`, `patches`
order.py         which samples an epoch takes, in which order
batches.py       which of them each optimizer step, micro-batch and device takes
overlap.py       held-out samples that are learned from too
workers.py       the processes that prepare batches; worker_process.py: their own side; parcels.py: batches on their way
bad_samples.py        the samples that were left out; guarded.py leaves them out
"""

from flashsloth.training.data.bad_samples import BAD_SAMPLES_FILE, BadSamples, GoodSamples, TooManyBadSamplesError
from flashsloth.training.data.json_data import JsonData, JsonlData
from flashsloth.training.data.mixture import Joined, conversations, open_source, patches
from flashsloth.training.data.sample import KINDS, BadSampleError, DataError, Sample, Where
from flashsloth.training.data.sampler import StepBatchSampler
from flashsloth.training.data.shards import ShardData
from flashsloth.training.data.tables import ParquetData
from flashsloth.training.data.world import WorldData, WorldPatches

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
    "WorldPatches",
    "conversations",
    "open_source",
    "patches",
]
