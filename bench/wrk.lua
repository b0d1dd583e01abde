-- What all scenarios share inside wrk; the scenario's own Lua follows it in the same file. That one defines
--   prepare(rows)   once, with the fields of every row of the load's file: render requests beforehand here.
--                   run_number says how many runs with this file came before
--   request()       returns the next request
--   answered(status, headers, body) -> ok    only where an answer decides the next request, or where statuses
--                   other than 2xx and 3xx are right; reading every answer costs wrk time
-- The last line printed is the result as JSON.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

-- Returns how many runs there were, and counts this one.
local function count_run(path)
   local file = io.open(path)
   local before = file and file:read("n") or 0
   if file then file:close() end
   file = io.open(path, "w")
   file:write(before + 1)
   file:close()
   return before
end

function init(args)
   local rows = {}
   for line in io.lines(args[1]) do
      local row = {}
      for field in line:gmatch("[^\t]+") do row[#row + 1] = field end
      rows[#rows + 1] = row
   end
   wrong = 0
   run_number = count_run(args[1] .. ".runs")
   prepare(rows)
   if answered then
      reads_answers = true
      function response(status, headers, body)
         if not answered(status, headers, body) then wrong = wrong + 1 end
      end
   end
end

function done(summary, latency, _)
   local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
   for _, thread in ipairs(threads) do
      errors = errors + (thread:get("reads_answers") and thread:get("wrong") or summary.errors.status)
   end
   print(string.format('{"requests":%d,"seconds":%.6f,"errors":%d,"p50_ms":%.3f,"p95_ms":%.3f,"p99_ms":%.3f}',
      summary.requests, summary.duration / 1e6, errors,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
