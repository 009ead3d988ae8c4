# What an application with redis-rb sees of an outage: outage.py says how. Arguments: a scenario, a port.
require "redis"

SCENARIO, PORT = ARGV[0], ARGV[1].to_i
$stdout.sync = true
$told = {}

def repeat
  yield
rescue Redis::BaseError => error
  warn "#{error.class}: #{error.message}"
  connection = error.is_a?(Redis::BaseConnectionError)
  puts connection ? "connection error" : "other error: #{error.class}: #{error.message}" unless $told[connection]
  $told[connection] = true
  sleep 0.05
  retry
end

client = Redis.new(port: PORT)
repeat { client.set("k", "v") }
puts "up"
if SCENARIO == "wait"
  repeat { client.blpop("queue") }
  puts "popped"
end
