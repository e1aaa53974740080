"""Runs conformance cases against a server, and prints one line a case: its id, how it ended, how its close ended.

usage: cases.py URL REPORT [CASE...]      CASE is an id or a pattern such as 9.*; without one, all of them

Ends with 0 when every case was run, whatever came of it: the caller knows what to expect.
"""

import asyncio
import sys

from kosoku import FailureError, run_fuzzingclient
from kosoku._report import write_reports


async def results(url, cases):
    try:
        return await run_fuzzingclient(url, cases or None, None, concurrency=2)
    except FailureError as failure:
        return failure.results


def order(result):
    return [int(part) for part in result.case_id.split(".")]


def main():
    url, report, *cases = sys.argv[1:]
    found = sorted(asyncio.run(results(url, cases)), key=order)
    write_reports(found, report)
    for result in found:
        ended = result.behavior.value.replace(" ", "-")
        closed = result.behavior_close.value.replace(" ", "-")
        print(result.case_id, ended, closed)


main()
