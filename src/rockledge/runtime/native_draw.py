"""The record by which the native step draws or scores the token of a row: `rl_draw` of native/rockledge.h."""

import ctypes

_LIST = ctypes.c_void_p
_COUNT = ctypes.c_int32


class SamplingRecord(ctypes.Structure):
    """`rl_sampling`."""

    _fields_ = [
        ("temperature", ctypes.c_float),
        ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float),
        ("top_k", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
    ]


class DrawRecord(ctypes.Structure):
    """`rl_draw`: fields to be read by the core, then its results. The core follows the addresses in it."""

    _fields_ = [
        ("sampling", SamplingRecord),
        ("number", ctypes.c_uint64),
        ("repetition", ctypes.c_float),
        ("presence", ctypes.c_float),
        ("frequency", ctypes.c_float),
        ("given", ctypes.c_int32),
        ("scored", ctypes.c_int32),
        ("seen_count", _COUNT),
        ("bias_count", _COUNT),
        ("banned_count", _COUNT),
        ("allowed_words", _COUNT),
        ("top_count", _COUNT),
        ("seen", _LIST),
        ("seen_times", _LIST),
        ("bias_tokens", _LIST),
        ("bias", _LIST),
        ("banned", _LIST),
        ("allowed", _LIST),
        ("top_tokens", _LIST),
        ("top_logprobs", _LIST),
        ("logprob", ctypes.c_double),
        ("top_found", ctypes.c_int32),
        ("token", ctypes.c_int32),
    ]
