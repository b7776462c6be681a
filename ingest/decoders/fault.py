"""Why something could not be decoded, and what was odd about what could: two closed lists."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Why a datagram, a set or a record was lost. Each is counted; the rest of the datagram lives on."""

    TRUNCATED = "truncated"
    """It ends before its header does, or a set reaches beyond the end, or a record of sFlow tells of more than it holds."""
    UNKNOWN_VERSION = "unknown_version"
    """The version word is none of the protocols."""
    BAD_LENGTH = "bad_length"
    """A length field is too small to be true, or the type of an sFlow agent's address tells no length."""
    BAD_COUNT = "bad_count"
    """A header of NetFlow v1, v5 or v7 with no record, or with more than 30; an AS path of endless segments."""
    RESERVED_SET = "reserved_set"
    """A set with an identifier that the protocol has not given a meaning."""
    BAD_TEMPLATE = "bad_template"
    """A template with an identifier below 256, or with more scope fields than fields."""
    EMPTY_TEMPLATE = "empty_template"
    """A template without fields, or all of whose fields are empty: its records would never end."""
    TEMPLATE_TOO_LARGE = "template_too_large"
    """A template over the bound of bytes."""
    TEMPLATE_LIMIT = "template_limit"
    """One template more than its exporter and observation domain may have."""
    BAD_RECORD = "bad_record"
    """A record of variable length that reaches beyond its set."""
    BAD_LIST = "bad_list"
    """A list inside a record that reaches beyond its field, or whose elements have no length. The record lives on."""
    UNKNOWN_LIST_TEMPLATE = "unknown_list_template"
    """A list inside a record whose template is not known. The record lives on without what the list says."""
    LIST_LIMIT = "list_limit"
    """A list that is nested too deep, or one kind of list more than is read of a batch. The record lives on."""
    PARKING_FULL = "parking_full"
    """A set without its template, when those that wait have taken all the room there is."""
    PARKING_QUOTA = "parking_quota"
    """A set without its template, when its exporter has taken all the room that one may."""
    TEMPLATE_NEVER_CAME = "template_never_came"
    """A set that waited for its template for as long as it may."""


class Oddity(StrEnum):
    """What an exporter did against the rules and could be read all the same. Counted, nothing is lost for it."""

    TRAILING_BYTES = "trailing_bytes"
    """A set, or a datagram of NetFlow v1, v5 or v7, ends with four bytes or more that are neither a record nor zeros."""
    COUNT_MISMATCH = "count_mismatch"
    """A header counts more records than the datagram has room for."""
    LENGTH_MISMATCH = "length_mismatch"
    """An IPFIX header tells another length than the datagram has."""
    WITHDRAWAL_IGNORED = "withdrawal_ignored"
    """An IPFIX template withdrawal, which UDP must not carry (RFC 7011 §8.4)."""
    TEMPLATE_REDEFINED = "template_redefined"
    """A template identifier that got another layout."""
    OPTIONS_LIMIT = "options_limit"
    """Something that options data told and for which there was no room."""
    OUT_OF_RANGE = "out_of_range"
    """A value too large for its column: null in the record."""


class Unit(StrEnum):
    """What a count of faults counts."""

    DATAGRAMS = "datagrams"
    SETS = "sets"
    RECORDS = "records"
    COUNTERS = "counters"
    """Counter samples: a row each."""
