"""structureflow: the motion of a structure video, extracted once, carried through every segment.

Imports flow one way: functions -> jobs -> guide, frames, flow, report -> media, storage, models -> errors.
"""

__version__ = "0.1.0"
