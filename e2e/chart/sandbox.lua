-- Runs a script of Argo CD's kind and prints what it returns, as JSON: sandbox.lua SCRIPT, the object as a Lua table on stdin.
-- A script sees what Argo CD gives it (util/lua/lua.go there): the base and table libraries, os.time and os.date by require, and obj.
-- The clock stands at 2026-01-02T03:04:05Z.
local clock = 1767323045

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
end

local function json(value)
  if type(value) ~= "table" then
    return type(value) == "string" and quoted(value) or tostring(value)
  end
  local parts = {}
  if #value > 0 then
    for _, inner in ipairs(value) do
      parts[#parts + 1] = json(inner)
    end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for key, inner in pairs(value) do
    parts[#parts + 1] = quoted(key) .. ":" .. json(inner)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local safe_os = {
  time = function() return clock end,
  date = function(format) return os.date(format, clock) end,
}
local given = {
  obj = assert(loadstring("return " .. io.read("*a")))(),
  table = table,
  require = function(name)
    assert(name == "os", "only os can be required")
    return safe_os
  end,
}
for _, name in ipairs({ "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "unpack" }) do
  given[name] = _G[name]
end

local script = assert(loadfile(arg[1]))
setfenv(script, given)
-- Strings have no methods there: the string library is not opened.
local methods = getmetatable("").__index
getmetatable("").__index = nil
local result = script()
getmetatable("").__index = methods
print(json(result))
