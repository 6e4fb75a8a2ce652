"""The Lua scripts of the run store in Redis. All keys of one script are one run's, so a Cluster has them in one slot.

A script answers 1 or more where it did what it was asked, 0 where Redis lacks a part of the run (it was restarted, it
failed over, or it evicts keys), and -1 where the run has another owner. What may be refused by a full Redis comes
first: it refuses only a script's first write.
"""

from typing import Final

DONE: Final = 1
TAKEN: Final = -1

CREATE: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return -1 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4]) end
return 1
"""
"""KEYS: the owner, the state, the plan. ARGV: the owner's token, the state, the plan, ms."""

APPEND: Final = """
local owner = redis.call('GET', KEYS[3])
if owner and owner ~= ARGV[7] then return -1 end
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local held = tail[1] and tonumber(string.match(tail[1][1], '^%d+')) or 0
if not owner or held < tonumber(ARGV[1]) or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if held < tonumber(ARGV[2]) then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], ARGV[2] .. '-0', 'e', ARGV[3], 'v', ARGV[6], unpack(ARGV, 8))
end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
return 1
"""
"""KEYS: the log, the state, the owner, the plan. ARGV: the first event's seq, the last one's plus one, the events, ms,
most entries, the version, the owner's token, and further fields of the entry."""

FINISH: Final = """
local owner = redis.call('GET', KEYS[4])
if owner and owner ~= ARGV[4] then return -1 end
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[4], ARGV[3])
return 1 + redis.call('DEL', KEYS[5])
"""
"""KEYS: the record, the log, the state, the owner, the plan. ARGV: the record, the state, ms, the owner's token.

It answers 2 where there was a plan: others have the run in a list then, from which it has to go.
All or nothing: a Redis that is restarted empty between two commands would be left with a state alone.
"""

TAKE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[2] then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 1
"""
"""KEYS: the owner, the state, the plan. ARGV: the owner's token as it was, the new one, the new state, ms.

Of all that try with the same old token, the first one alone succeeds; from then on the old owner's writes are refused.
One that was sent twice, because its answer was lost, succeeds twice.
"""

ABANDON: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[3])
return 1
"""
"""KEYS: the owner, the state, the plan. ARGV: the owner's token, the state without an owner, ms."""

RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""KEYS: the claim. ARGV: the value that it must have."""
