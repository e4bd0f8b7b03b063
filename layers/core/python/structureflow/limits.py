"""Every bound on what comes from outside, each with its reason. Nothing is imported here, so all may use it.

A bound is checked before the work that it bounds: bytes before parsing, the number of items before the items.
Sections and, within a section, the order of use; a constant says its unit in its name.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAX_CONCURRENT_SEGMENTS",
    "MAX_DIGITS",
    "MAX_IMAGE_BYTES",
    "MAX_PROBLEMS",
    "MAX_REQUEST_BYTES",
    "MAX_VIDEO_FRAMES",
    "MAX_WORKING_GRID_PX",
    "MEMORY_SHARE",
    "NEW_ACCOUNT_MEMORY_MB",
]

# --- AWS ---------------------------------------------------------------------------------------------

#: Of one call of a function.
MAX_FUNCTION_S: Final = 900
#: Functions at a time in many a new account.
NEW_ACCOUNT_CONCURRENCY: Final = 10
#: Of an execution's history (Step Functions quotas).
MAX_HISTORY_EVENTS: Final = 25_000
#: Of a function in a new account; AWS raises it to 10,240 once the account is used, or when asked.
NEW_ACCOUNT_MEMORY_MB: Final = 3_008
#: That comes with a vCPU (AWS Lambda Developer Guide).
MB_PER_VCPU: Final = 1_769

#: Of one PUT or one copy; what is larger goes in parts (Amazon S3 User Guide).
MAX_S3_PUT_BYTES: Final = 5 * 1024**3
#: Of a part of one object, but for its last one.
MIN_S3_PART_BYTES: Final = 5 * 1024**2
#: Of one object.
MAX_S3_PARTS: Final = 10_000

# --- what is said ------------------------------------------------------------------------------------

#: Of an error's message and of each text in its detail. A hundred short problems fit; what a caller sent does not.
MAX_MESSAGE_CHARS: Final = 2_000
#: Problems that the refusal of a request lists; the first ones show what is wrong.
MAX_PROBLEMS: Final = 20
#: Bad fields of a document that are looked at one by one; each takes a kilobyte.
MAX_LISTED_ERRORS: Final = 10_000

# --- events ------------------------------------------------------------------------------------------

#: Values in an event. The largest that AWS sends, of an ECS task, has about 200; Lambda hands over up to 6 MB.
MAX_EVENT_VALUES: Final = 10_000

# --- JSON documents ----------------------------------------------------------------------------------

#: Of a ``request.json``. 20,000 guides with references of 60 characters take 1.9 MB. Parsed JSON takes up to 25 times
#: its bytes (``[[],[],…``), so this is 60 MB at most.
MAX_REQUEST_BYTES: Final = 2 * 1024**2
#: Of a document that a step left for another one: the record of the largest request, indented, is 5.2 MB, and what
#: pins its 20,000 guides 6.6 MB.
MAX_DOCUMENT_BYTES: Final = 12 * 1024**2
#: Commas, colons and brackets in it: the largest record has 222,000. So many take 150 MB at most, as objects and as
#: bad fields, of the 512 MB of the smallest function.
MAX_DOCUMENT_VALUES: Final = 700_000
#: Of a timeline's manifest: 100 bytes a frame make this about 160,000 frames, almost two hours at 25 fps.
MAX_FRAME_MANIFEST_BYTES: Final = 16 * 1024**2
#: Commas, colons and brackets in it, of ten columns. Only functions of 1,024 MB and more read manifests.
MAX_FRAME_MANIFEST_VALUES: Final = 2_200_000
#: Of a run's claim, which names one execution.
MAX_CLAIM_BYTES: Final = 4_096
#: Fields of one object of a request; the request itself has 30 with its older names.
MAX_FIELDS: Final = 64
#: Levels of objects and lists within each other; a request has seven.
MAX_LEVELS: Final = 16
#: Characters of a field's name.
MAX_FIELD_NAME_CHARS: Final = 64
#: Characters of any text in a request: the longest is a reference.
MAX_REFERENCE_CHARS: Final = 2_048
#: Items of any list in a request; each list has a smaller bound of its own.
MAX_ITEMS: Final = 20_000
#: Names in a list of kinds, such as `outputs`: more than there are kinds.
MAX_NAMES: Final = 32
#: Of any whole number in a request; floats are exact up to here.
MAX_WHOLE_NUMBER: Final = 2**53

# --- the job -----------------------------------------------------------------------------------------

#: Of one job. AssembleJob looks at each, and copies its files, within its two minutes.
MAX_SEGMENTS: Final = 2_000
#: Of one job in an inline Map, which runs no more at the same time (Step Functions Developer Guide, "Map workflow
#: state"), and whose execution's history they share. More go into a Distributed Map, an execution each.
MAX_INLINE_SEGMENTS: Final = 40
#: Of one job at the same time, by default.
MAX_CONCURRENT_SEGMENTS: Final = 40
#: Of a Distributed Map at the same time (Step Functions quotas), and the most that a stack can be set to.
MAX_MAP_CHILDREN: Final = 10_000
#: Of one segment; the largest at 4K must end within RenderSegment's timeout.
MAX_SEGMENT_FRAMES: Final = 2_000
#: Of all segments together: 2,000 of the longest that generators take, or 400 of the longest that there may be.
MAX_JOB_FRAMES: Final = 800_000
#: Of all segments together: 50 in each of 400, or every frame of ten long ones. A guide is up to 1 kB in memory.
MAX_GUIDES: Final = 20_000
#: Sides of the videos that a job makes.
MAX_OUTPUT_SIDE_PX: Final = 4_096
MIN_OUTPUT_SIDE_PX: Final = 32
#: Of the videos that a job makes. Below one, clock rates of containers and the fractions of encoders fail.
MIN_OUTPUT_FPS: Final = 1.0
MAX_OUTPUT_FPS: Final = 240.0
#: Of one job, on its timeline. Each is looked up, and extracted once, before a segment starts.
MAX_STRUCTURE_VIDEOS: Final = 32
#: Of every step of a path; more throws everything out of the frame.
MAX_MOTION_STRENGTH: Final = 10.0
#: Of the blocks that masks are made of: four times what any model packs into one place.
MAX_MASK_GRID_PX: Final = 128

# --- pictures and video ------------------------------------------------------------------------------

#: Sides of videos that are read, as stored and as displayed: what H.264 level 6.2 has, and 8K phones and cameras.
MAX_VIDEO_SIDE_PX: Final = 8_192
#: Below it no flow can be measured.
MIN_VIDEO_SIDE_PX: Final = 32
#: From the first frame to the last: as long as `MAX_FLOWS` at 14 a second. What one function cannot extract in time is
#: refused by its estimate, or done in parts.
MAX_VIDEO_S: Final = 7_200.0
#: Of an image file, before it is read.
MAX_IMAGE_BYTES: Final = 128 * 2**20
#: Of an image, before its pixels are decoded: what large cameras take; 48 megapixels are common in phones.
MAX_IMAGE_PIXELS: Final = 50_000_000
#: What images that a process decodes at the same time may take: one of the largest, or eight of a phone.
MAX_PIXEL_BYTES_IN_FLIGHT: Final = 768 * 2**20
#: What image files that a process holds to decode them may take: two of the largest.
MAX_FILE_BYTES_IN_FLIGHT: Final = 256 * 2**20

# --- parts -------------------------------------------------------------------------------------------

#: Of a video that one function extracts by itself: planning, cold starts and the join would take as long.
MAX_ALONE_FRAMES: Final = 150
#: Of a part, about; it ends at a key frame.
PART_FRAMES: Final = 150
#: Of one job at the same time: each stores some 30 frames a second, and S3 takes 3,500 a second below a prefix.
MAX_CONCURRENT_PARTS: Final = 100
#: How often parts that did not come are done again, beside the retries of each.
MAX_PART_ROUNDS: Final = 2

# --- archives ----------------------------------------------------------------------------------------

#: Of one archive: 66 minutes at 25 a second. Its seek table, 32 bytes a flow, stays below the 4 MiB of tail that a
#: reader takes.
MAX_FLOWS: Final = 100_000
#: Of the grid that a segment carries motion on; larger ones, of plain archives, are averaged down. At this one both
#: anchors take 0.6 GB; the largest of our own is half of it (960x544).
MAX_WORKING_GRID_PX: Final = 1024 * 1024
#: Of a structure video: one more than its flows. No setting goes beyond.
MAX_VIDEO_FRAMES: Final = MAX_FLOWS + 1

# --- the API -----------------------------------------------------------------------------------------

#: Of one reply as Lambda hands it over: 6 MB (Lambda quotas), of which JSON's escapes and the headers take some.
MAX_REPLY_BYTES: Final = 5_500_000

#: Of a segment whose gap a preview shows: all of it is rendered, within 18 seconds.
MAX_PREVIEW_FRAMES: Final = 241
#: Of the structure video that a preview decodes for flows that nobody has extracted yet, and holds small.
MAX_PREVIEW_WINDOW: Final = 600
#: Of a structure video, or of all guides, that a preview fetches whole while somebody waits.
MAX_PREVIEW_BYTES: Final = 256 * 2**20
#: Of the gap that one preview shows.
MAX_PREVIEW_SHOWN: Final = 24

# --- queries -----------------------------------------------------------------------------------------

#: Frames that one query names.
MAX_SEQUENCES: Final = 100_000
#: Of a page, as an offset into a listing: above what a timeline's overlays ever count.
MAX_PAGE: Final = 100_000_000
#: Digits of any number that arrives as text; ``int()`` itself refuses, untyped, what has more than 4,300.
MAX_DIGITS: Final = 18

# --- time --------------------------------------------------------------------------------------------

#: A function stops itself so long before the runtime ends it: time to say why, and to leave nothing half-made.
STOP_BEFORE_END_S: Final = 30.0
#: Milliseconds of one core for decoding a million pixels of a source frame. Measured on 2026-11-25 with 1280x720
#: H.264 on an x86-64 core.
DECODE_MS_PER_MPX: Final = 9.0
#: The same for their JPEG and its hash.
JPEG_MS_PER_MPX: Final = 6.0
#: Of a function's memory that work may be expected to take; the rest is for what was estimated badly.
MEMORY_SHARE: Final = 0.6
#: A vCPU of Lambda is half a core, and its neighbours are busy: estimates are this much longer than measured.
TIME_RESERVE: Final = 2.0
