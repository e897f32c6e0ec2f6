wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"kind": "noop", "args": {"n": 1, "text": "' .. string.rep("x", 100) .. '"}}'
