-- Send the bodies in the folder BODIES in turn, each thread from another one on; count responses by status.
-- With NEW_TEXTS, every request has another number at the end of its caption.
local bodies, next_body = {}, 0
local threads = {}
function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end
function init(args)
  local folder = os.getenv("BODIES")
  for index = 0, tonumber(os.getenv("COUNT")) - 1 do
    local file = assert(io.open(string.format("%s/%d", folder, index), "rb"))
    bodies[index] = file:read("*a")
    file:close()
  end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
  if os.getenv("NEW_TEXTS") ~= "1" then  -- format unchanged messages once, to leave the processor to the service
    for index = 0, #bodies do bodies[index] = wrk.format(nil, nil, nil, bodies[index]) end
  end
  next_body = number * 29
  refused, wrong = 0, 0
  fresh, counter = os.getenv("NEW_TEXTS") == "1", 1000 * number
end
function request()
  next_body = (next_body + 1) % (#bodies + 1)
  local body = bodies[next_body]
  if not fresh then return body end
  counter = counter + 1
  local at = body:find("item %d%d%d%d%d%d%d%d") + 5
  return wrk.format(nil, nil, nil, body:sub(1, at - 1) .. string.format("%08d", counter) .. body:sub(at + 8))
end
function response(status)
  if status == 429 or status == 503 then refused = refused + 1 elseif status ~= 200 then wrong = wrong + 1 end
end
function done(summary, latency)
  local refused, wrong = 0, 0
  for _, thread in ipairs(threads) do
    refused, wrong = refused + thread:get("refused"), wrong + thread:get("wrong")
  end
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %f, "refused": %d, "wrong": %d, "broken": %d, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, refused, wrong,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
